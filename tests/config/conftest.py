"""A small description of a data set, and a recipe beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = """\
name: fields
images: "img/*.png"
masks: "lab/*.png"
classes: [{name: soil, value: 1}, {name: crop, value: 2}]
split: {train: [a, b], val: [c]}
"""


RECIPE = """\
seed: 3
data: data.yaml
student:
  model: {id: unet, options: {width: 8}, encoder_weights: ../w.safetensors}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sets" / "data.yaml"
    path.parent.mkdir()
    path.write_text(DATA)
    return path


@pytest.fixture
def recipe(data: Path) -> Path:
    path = data.parent / "recipe.yaml"
    path.write_text(RECIPE)
    return path
