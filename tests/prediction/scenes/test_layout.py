from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segshrink.prediction.scenes.tiles import lay_out
from segshrink.tiling import Window

quick = settings(max_examples=30)


@quick
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    step=st.integers(1, 20),
    overlap=st.integers(0, 15),
    align=st.sampled_from((1, 4)),
    centered=st.booleans(),
    span_pixels=st.integers(1, 4000),
)
def test_every_pixel_is_decided_once_by_a_tile_that_sees_it(height, width, step, overlap, align, centered, span_pixels):
    tile = overlap + step
    spans = lay_out(height, width, tile=tile, overlap=overlap, align=align, centered=centered, span_pixels=span_pixels)
    decided = np.zeros((height, width), int)
    for span in spans:
        parts = np.zeros((height, width), int)
        for one in span.tiles:
            assert inside(one.kept, one.window)
            assert inside(one.window, span.window)
            parts[one.kept.slices] += 1
        whole = np.zeros((height, width), int)
        whole[span.kept.slices] = 1
        np.testing.assert_array_equal(parts, whole)
        decided += parts
    assert (decided == 1).all()
    starts = [(span.window.row, span.window.col) for span in spans]
    assert starts == sorted(starts)


def inside(part: Window, whole: Window) -> bool:
    return (
        part.row >= whole.row
        and part.col >= whole.col
        and part.row + part.height <= whole.row + whole.height
        and part.col + part.width <= whole.col + whole.width
    )


def test_centred_tiles_decide_what_is_nearest_to_their_middle():
    tiles = [tile for span in lay_out(64, 160, tile=64, overlap=16, align=1, centered=True, span_pixels=9**9)
             for tile in span.tiles]  # fmt: skip
    assert [(tile.window.col, tile.kept.col, tile.kept.width) for tile in tiles] == [
        (0, 0, 56), (48, 56, 48), (96, 104, 56),
    ]  # fmt: skip


def test_spans_hold_as_many_tiles_as_asked_for():
    for pixels, expected in ((1, 1), (3 * 32 * 48, 3), (6 * 32 * 48, 4), (10**9, 7)):
        spans = lay_out(48, 32 * 7 + 16, tile=48, overlap=16, align=1, centered=True, span_pixels=pixels)
        assert max(len(span.tiles) for span in spans) == expected
        assert sum(len(span.tiles) for span in spans) == 7


def test_batches_hold_tiles_of_one_width():
    (span,) = lay_out(32, 32 * 4 + 7, tile=32, overlap=0, align=8, centered=True, span_pixels=10**9)
    assert [tile.window.width for tile in span.tiles] == [32, 32, 32, 39]
    assert [len(batch) for batch in span.batches(2)] == [2, 1, 1]


@pytest.mark.parametrize(("size", "tile"), [(1, 16), (16, 16), (9, 40)])
def test_a_scene_within_a_tile_is_one(size, tile):
    (span,) = lay_out(size, size, tile=tile, overlap=4, align=4, centered=True, span_pixels=1)
    assert span.window == span.kept == span.tiles[0].window == Window(0, 0, size, size)
