"""``segshrink init`` on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Run


def test_init_says_what_it_found_and_what_comes_next(
    segshrink: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segshrink.workflows.starting_recipe.find_spec", lambda name: None)
    root, out = tmp_path / "fields", tmp_path / "out"
    for number in range(4):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        Image.fromarray(np.repeat(np.uint8([[0, 1]]), 32, axis=0).repeat(16, axis=1)).save(root / f"masks/{number}.png")
    made = segshrink("init", root, "--out", out)
    assert made.status == 0, made.err
    assert "4 images with masks; classes: background 50" in made.out
    assert "please check  0, 1: a mask of two values, name them" in made.out
    assert f"segshrink inspect {out / 'data.yaml'}" in made.out
    inspected = segshrink("inspect", out / "data.yaml")
    assert (inspected.status, "ready to train" in inspected.out) == (0, True)
    again = segshrink("init", root, "--out", out, "--yes")
    assert again.status == 1
    assert "data.yaml is there already; move it away, or choose another place with --out" in again.sentence
