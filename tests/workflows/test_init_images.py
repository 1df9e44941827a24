"""A folder of images alone becomes a description with the classes of a teacher."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segshrink
from segshrink.config import load_dataset, load_recipe
from segshrink.data import open_dataset
from segshrink.errors import DataError

pytestmark = pytest.mark.usefixtures("_without_torch")
SIZE = 32


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(str(path).encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)


def test_images_alone_get_the_classes_of_a_teacher(tmp_path: Path) -> None:
    classes = segshrink.ClassMap.build([("sea", "#0000FF", None), ("land", "#00FF00", None)])
    teacher = tmp_path / "teacher"
    segshrink.build_model("unet", classes, options={"width": 2, "depth": 2}).save(teacher)
    root = tmp_path / "data"
    for number in range(4):
        image(root / f"north/{number}.png")
    (root / "north/broken.png").write_bytes(b"no picture")
    made = segshrink.init(root, out=tmp_path / "out", teacher=teacher)
    assert made.pairs == 0
    assert list(made.classes) == ["sea", "land"]
    dataset = open_dataset(load_dataset(made.data))
    assert not dataset.labeled
    assert len(dataset.train) + len(dataset.val) == 4
    assert dataset.classes.names == ("sea", "land")
    assert dataset.classes.colors == classes.colors
    recipe = load_recipe(made.recipe)
    assert recipe.distillation.teachers[0].source == str(teacher)
    assert [term.name for term in recipe.distillation.terms] == ["pixel_kl", "soft_jaccard"]
    with pytest.raises(DataError, match=r"classes must be the teacher's, but .*nobody does not exist"):
        segshrink.init(root, out=tmp_path / "other", teacher=tmp_path / "nobody")


def test_images_of_several_suffixes_are_listed(tmp_path: Path) -> None:
    segshrink.build_model("unet", segshrink.ClassMap.build(["a", "b"]), options={"width": 2, "depth": 2}).save(
        tmp_path / "teacher"
    )
    for name in ("1.png", "2.jpg", "3.png"):
        image(tmp_path / "data" / name)
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out", teacher=tmp_path / "teacher")
    assert (tmp_path / "out/images.txt").read_text().split() == ["1.png", "2.jpg", "3.png"]
    dataset = open_dataset(load_dataset(made.data))
    assert len(dataset.train) + len(dataset.val) == 3
