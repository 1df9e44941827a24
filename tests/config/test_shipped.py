"""Every description and recipe in configs/ loads, and the data sets' descriptions fit the real data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segshrink import workflows
from segshrink.classes import ClassMap
from segshrink.config import DatasetDescription, load_dataset, load_recipe, read_yaml
from segshrink.imagery import probe, read_mask

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def class_map(description: DatasetDescription) -> ClassMap:
    entries = [(entry.name, entry.color, entry.value) for entry in description.classes]
    return ClassMap.build(entries, description.ignore, mask_kind=description.mask_kind)


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_descriptions_load(path: Path) -> None:
    description = load_dataset(path)
    assert description.root.is_relative_to(CONFIGS.parent / "data")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.teacher is not None or recipe.student is not None


@pytest.mark.parametrize(
    "path",
    [*sorted(CONFIGS.glob("*.yaml")), Path(workflows.__file__).with_name("demo.yaml")],
    ids=lambda path: path.stem,
)
def test_recipes_draw_curves_of_ten_points(path: Path) -> None:
    """Losses are measured after every epoch."""
    content = read_yaml(path)
    epochs = [content[role]["training"]["epochs"] for role in ("teacher", "student") if role in content]
    assert epochs
    assert min(epochs) >= 10


def test_dubai_agrees_with_its_masks(shared_data: Path) -> None:
    root = shared_data / "dubai"
    description = load_dataset(CONFIGS / "data" / "dubai.yaml", [f"root={root}"])
    classes = class_map(description)
    images = sorted(description.root.glob(description.images))
    masks = sorted(description.root.glob(description.masks or ""))
    assert len(images) == len(masks) == 54
    shares = np.zeros((9, 256), dtype=np.int64)
    for image, mask in zip(images, masks, strict=True):
        index = read_mask(mask, classes)
        info = probe(image)
        assert index.shape == (info.height, info.width)
        shares[int(mask.parent.parent.name[-1])] += np.bincount(index.ravel(), minlength=256)
    # What the data set's own description says about its tiles.
    labeled = shares[:, :5] / np.maximum(shares[:, :5].sum(axis=1, keepdims=True), 1)
    building, water = 0, 4
    assert labeled[4, building] == pytest.approx(0.40, abs=0.015)
    assert labeled[[5, 6], building] == pytest.approx(0.02, abs=0.015)
    assert labeled[5, water] == pytest.approx(0.52, abs=0.015)
    assert labeled[7, water] == pytest.approx(0.015, abs=0.006)


def test_black_in_dubai_is_ignored(shared_data: Path) -> None:
    path = shared_data / "dubai" / "Tile 8" / "masks" / "image_part_003.png"
    classes = class_map(load_dataset(CONFIGS / "data" / "dubai.yaml"))
    with Image.open(path) as image:
        black = (np.array(image.convert("RGB")) == 0).all(axis=2)
    index = read_mask(path, classes)
    assert black.mean() == pytest.approx(0.17, abs=0.005)
    assert (index[black] == 255).all()


def test_dubai_split_is_by_tile() -> None:
    split = load_dataset(CONFIGS / "data" / "dubai.yaml").split
    assert split.train == ["Tile 4", "Tile 6", "Tile 7", "Tile 8"]
    assert split.val == ["Tile 2", "Tile 5"]
    assert not split.leaking


def test_voc_agrees_with_its_masks(shared_data: Path) -> None:
    root = shared_data / "VOCdevkit" / "VOC2012"
    description = load_dataset(CONFIGS / "data" / "voc.yaml", [f"root={root}"])
    classes = class_map(description)
    assert classes.values == tuple(range(21))
    assert classes.ignored_values == (255,)
    masks = sorted((root / "SegmentationClass").glob("*.png"))[::40]
    for path in masks:
        with Image.open(path) as image:
            raw = np.array(image)
            palette = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        np.testing.assert_array_equal(read_mask(path, classes), raw)
        np.testing.assert_array_equal(palette[:21], np.array(classes.colors))
    assert isinstance(description.split.train, str)
    assert isinstance(description.split.val, str)
    train = (root / description.split.train).read_text().split()
    val = (root / description.split.val).read_text().split()
    assert (len(train), len(val)) == (772, 194)
    assert not set(train) & set(val)
    assert all((root / "JPEGImages" / f"{stem}.jpg").exists() for stem in (*train, *val))


def test_colors_in_descriptions_are_quoted() -> None:
    # An unquoted #... is a comment: the color would silently be missing.
    for path in CONFIGS.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            assert not re.search(r"[:,\[\s]#[0-9A-Fa-f]{6}\b", line), f"{path}: {line}"
