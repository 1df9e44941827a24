"""Images paired with one file of annotations or polygons for many, and what the store keeps of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import Affine

from segshrink.cli._tables import print_inspection
from segshrink.config import DatasetDescription
from segshrink.data import SceneStore, inspect_dataset, open_dataset
from segshrink.data.pairing import find_pairs
from segshrink.errors import ConfigError, DataError

SIDE = 16


def describe(root: Path, **changes: Any) -> DatasetDescription:
    given = {
        "name": "case",
        "root": root,
        "images": "*.png",
        "masks": "coco.json",
        "classes": ["background", "house"],
        "split": {"train": ["a"], "val": ["b"]},
    }
    return DatasetDescription.model_validate(given | changes)


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Two images of the same pixels, of which COCO says different things."""
    for name in "ab":
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"{name}.png")
    size = {"height": SIDE, "width": SIDE}
    shapes = {0: [0, 0, 8, 0, 8, 8, 0, 8], 1: [8, 8, 16, 8, 16, 12, 8, 12]}
    content = {
        "images": [{"id": n, "file_name": f"{name}.png", **size} for n, name in enumerate("ab")],
        "categories": [{"id": 1, "name": "house"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [shape], "iscrowd": 0}
            for n, shape in shapes.items()
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_images_of_equal_pixels_keep_their_own_masks(twins: Path, tmp_path: Path) -> None:
    dataset = open_dataset(describe(twins))
    store = SceneStore([*dataset.train, *dataset.val], dataset.classes, folder=tmp_path / "cache")
    first, second = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    first[:8, :8] = 1
    second[8:12, 8:] = 1
    np.testing.assert_array_equal(store.mask(0), first)
    np.testing.assert_array_equal(store.mask(1), second)


def test_an_image_that_is_not_listed_has_no_mask(twins: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), "red").save(twins / "c.png")
    assert [pair.mask is None for pair in find_pairs(describe(twins)).pairs] == [False, False, True]
    with pytest.raises(DataError, match=r"1 of 3 images have no mask: c\.png \(expected coco\.json\)"):
        open_dataset(describe(twins, split={"train": ["a", "c"], "val": ["b"]}))


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["north/a.png"], ["north/a.png", "south/a.png"], ["north/a.png"]),
        (["north/a.png"], ["pictures/a.png"], ["pictures/a.png"]),
        (["a.png", "north/a.png"], ["a.png", "north/a.png"], ["a.png", "north/a.png"]),
        (["north/a.png", "east/a.png"], ["east/a.png", "north/a.png", "west/a.png"], ["east/a.png", "north/a.png"]),
    ],
)
@pytest.mark.parametrize("source", ["wildcard", "list", "columns"])
def test_a_name_means_the_one_image_that_is_most_like_it(
    names: list[str], images: list[str], expected: list[str], source: str, tmp_path: Path
) -> None:
    for image in images:
        (tmp_path / image).parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / image)
    listed = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": listed, "annotations": []}), encoding="utf-8")
    column = "\tcoco.json" if source == "columns" else ""
    (tmp_path / "list.txt").write_text("".join(f"{image}{column}\n" for image in images), encoding="utf-8")
    masks = None if source == "columns" else "coco.json"
    pairs = find_pairs(describe(tmp_path, images="**/*.png" if source == "wildcard" else "list.txt", masks=masks)).pairs
    assert [pair.relative for pair in pairs if pair.mask is not None] == expected


def test_a_name_that_several_images_have_is_refused(twins: Path) -> None:
    for folder in ("x", "y"):
        (twins / folder).mkdir()
        shutil.copy(twins / "a.png", twins / folder)
    with pytest.raises(DataError, match=r"names a\.png, which may be .*x/a\.png or .*y/a\.png; write the folder"):
        find_pairs(describe(twins, images="*/*.png"))


def test_one_image_for_all_is_still_refused(twins: Path) -> None:
    with pytest.raises(ConfigError, match=r"images '\*\.png' has 1 \* parts but masks 'a\.png' has 0"):
        find_pairs(describe(twins, masks="a.png"))


def test_inspect_shows_where_masks_come_from(twins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspection = inspect_dataset(describe(twins, classes=["background", {"name": "built", "labels": ["house"]}]))
    assert [part.class_shares for part in inspection.parts] == [
        {"background": 0.75, "built": 0.25},
        {"background": 0.875, "built": 0.125},
    ]
    print_inspection(inspection)
    assert "masks of 2 images are drawn from COCO annotations" in capsys.readouterr().out


def test_inspect_counts_undeclared_labels(twins: Path) -> None:
    inspection = inspect_dataset(describe(twins, classes=["background", "road"]))
    assert {(finding.value, finding.pixels) for finding in inspection.undeclared} == {("house", 96)}


def test_a_list_of_images_shares_a_file(twins: Path) -> None:
    (twins / "list.txt").write_text("a.png\nb.png\n", encoding="utf-8")
    assert [pair.mask for pair in find_pairs(describe(twins, images="list.txt")).pairs] == [twins / "coco.json"] * 2
    (twins / "list.txt").write_text("a.png\tcoco.json\n", encoding="utf-8")
    assert find_pairs(describe(twins, images="list.txt", masks=None)).pairs[0].mask == twins / "coco.json"


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_tiles_share_a_file_of_polygons(suffix: str, tmp_path: Path) -> None:
    """Tiles in one zone, polygons in degrees; a tile without polygons is background, not ignored."""
    for number in range(3):
        profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
        place = Affine(1, 0, 5e5 + 100 * number, 0, -1, 5e6)
        with rasterio.open(tmp_path / f"{number}.tif", "w", transform=place, **profile) as dataset:
            dataset.write(np.full((3, SIDE, SIDE), number + 1, dtype=np.uint8))
    ground = [shapely.box(5e5 + 100 * n, 5e6 - height, 5e5 + 100 * n + 8, 5e6) for n, height in ((0, 4), (1, 8))]
    pyogrio.raw.write(
        tmp_path / f"houses.{suffix}",
        geometry=np.array(shapely.to_wkb(ground)),
        field_data=[np.array([3, 9])],
        fields=["floors"],
        geometry_type="Polygon",
        crs="EPSG:32633",
        layer="houses",
    )
    description = describe(
        tmp_path, images="*.tif", masks=f"houses.{suffix}", split={"train": ["0", "1"], "val": ["2"]}
    )
    dataset = open_dataset(description)
    store = SceneStore([*dataset.train, *dataset.val], dataset.classes, folder=tmp_path / "cache")
    assert [int(store.mask(index).sum()) for index in range(3)] == [32, 64, 0]
    assert store.mask(1)[:8, :8].all()
