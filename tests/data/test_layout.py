"""How images and masks are laid out, from their names alone."""

from __future__ import annotations

from segshrink.data.layout import find_layout


def test_a_hundred_thousand_names_are_paired() -> None:
    names = [f"{part}/{kind}/{number}.{suffix}" for part in ("train", "val") for number in range(25_000)
             for kind, suffix in (("images", "jpg"), ("masks", "png"))]  # fmt: skip
    layout = find_layout(sorted(names))
    assert layout is not None
    assert (layout.images, layout.masks, len(layout.pairs)) == ("*/images/*.jpg", "*/masks/*.png", 50_000)
    assert layout.unpaired == ()
