"""Folders of annotations, polygons and masks a class become descriptions that are ready to train."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

import segshrink
from segshrink.config import load_dataset
from segshrink.data import inspect_dataset
from segshrink.errors import DataError

pytestmark = pytest.mark.usefixtures("_without_torch")
SIDE = 32
# Of 32 x 32 pixels each shape covers a quarter: 16 x 16, at the top left.
BOX = [0, 0, 16, 0, 16, 16, 0, 16]
NAMES = ("a.jpg", "b.jpg", "c.jpg")
QUARTER = {"background": 0.75, "house": 0.25}


def image(path: Path) -> None:
    """Write an image of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path).encode()[-8:], "big")
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)


def text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco(path: Path, images: Sequence[str], *, unused: str = "road") -> None:
    content = {
        "images": [{"id": n, "file_name": name, "height": SIDE, "width": SIDE} for n, name in enumerate(images)],
        "categories": [{"id": 9, "name": unused}, {"id": 4, "name": "house"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 4, "segmentation": [BOX], "iscrowd": 0} for n in range(len(images))
        ],
    }
    text(path, content)


def roboflow_coco(root: Path) -> None:
    for part in ("train", "valid"):
        for name in NAMES:
            image(root / part / name)
        coco(root / part / "_annotations.coco.json", NAMES)


def coco_of_parts(root: Path) -> None:
    for part in ("train", "valid"):
        for name in NAMES:
            image(root / "images" / part / name)
        coco(root / "annotations" / f"instances_{part}.json", NAMES)


def coco_2017(root: Path) -> None:
    for part, names in (("train2017", ("1.jpg", "2.jpg", "3.jpg")), ("val2017", ("4.jpg",))):
        for name in names:
            image(root / part / name)
        coco(root / "annotations" / f"instances_{part}.json", names)


def one_coco(root: Path) -> None:
    for name in "abcd":
        image(root / "photos" / f"{name}.png")
    coco(root / "export.json", ["a.png", "b.png", "c.png"])


def yolo(root: Path) -> None:
    for part, names in (("train", "abc"), ("val", "d")):
        for name in names:
            image(root / "images" / part / f"{name}.jpg")
            text(root / "labels" / part / f"{name}.txt", "1 0 0 0.5 0 0.5 0.5 0 0.5\n")
    text(root / "data.yaml", "train: images/train\nnames: {0: road, 1: house}\n")


def labelme(root: Path) -> None:
    for name in "abc":
        image(root / f"{name}.jpg")
        points = [BOX[place : place + 2] for place in range(0, 8, 2)]
        text(
            root / f"{name}.json",
            {"shapes": [{"label": "house", "points": points}], "imageHeight": SIDE, "imageWidth": SIDE},
        )


def cvat(root: Path) -> None:
    for name in "abc":
        image(root / "images" / f"{name}.jpg")
    entries = "".join(
        f'<image name="{name}.jpg" width="{SIDE}" height="{SIDE}">'
        '<box label="house" xtl="0" ytl="0" xbr="16" ybr="16"/></image>'
        for name in "abc"
    )
    text(root / "annotations.xml", f"<annotations><version>1.1</version>{entries}</annotations>")


def folder_a_class(root: Path) -> None:
    for name in "abc":
        image(root / "images" / f"{name}.jpg")
        for label, covered in (("house", np.s_[:16, :16]), ("road", np.s_[:0])):
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            mask[covered] = 255
            (root / "masks" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / label / f"{name}.png")


def tiles(root: Path) -> None:
    """Three tiles side by side, half a meter a pixel."""
    root.mkdir(parents=True)
    for number in range(3):
        profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
        place = Affine(0.5, 0, 5e5 + 16 * number, 0, -0.5, 5e6)
        with rasterio.open(root / f"tile{number}.tif", "w", transform=place, **profile) as dataset:
            dataset.write(np.random.default_rng(number).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8))


def polygons(path: Path, field: str) -> None:
    corners = [[5e5 + 16 * n + x, 5e6 - y] for n in range(3) for x, y in ((0, 0), (8, 0), (8, 8), (0, 8), (0, 0))]
    features = [
        {
            "type": "Feature",
            "properties": {field: "house"},
            "geometry": {"type": "Polygon", "coordinates": [corners[5 * n : 5 * n + 5]]},
        }
        for n in range(3)
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    text(path, {"type": "FeatureCollection", "crs": crs, "features": features})


def one_geojson(root: Path) -> None:
    tiles(root)
    polygons(root / "house.geojson", "height_in_m")


def one_geojson_of_classes(root: Path) -> None:
    tiles(root)
    polygons(root / "all.geojson", "landuse")


@pytest.mark.parametrize(
    ("draw", "lines"),
    [
        (roboflow_coco, ('images: "*/*.jpg"', 'masks: "*/_annotations.coco.json"', "train: [train]")),
        (coco_of_parts, ("images: images/*/*.jpg", "masks: annotations/instances_*.json")),
        (coco_2017, ('images: "*2017/*.jpg"', "masks: annotations/instances_*2017.json")),
        (one_coco, ("pairs.txt", "unlabeled: ")),
        (yolo, ("masks: labels/*/*.txt", 'labels: ["1"]')),
        (labelme, ('masks: "*.json"', "mask_background: background")),
        (cvat, ("masks: annotations.xml",)),
        (folder_a_class, ('masks: "masks/{class}/*.png"', "in no mask that was looked at: road")),
        (one_geojson, ("masks: house.geojson",)),
        (one_geojson_of_classes, ("masks: all.geojson", "mask_field: landuse")),
    ],
)
def test_annotations_become_descriptions_that_are_ready(
    draw: Callable[[Path], None], lines: tuple[str, ...], tmp_path: Path
) -> None:
    draw(tmp_path / "data")
    made = segshrink.init(tmp_path / "data", out=tmp_path / "out")
    assert made.classes == QUARTER
    written = made.data.read_text(encoding="utf-8")
    for line in lines:
        assert line in written, written
    inspection = inspect_dataset(load_dataset(made.data))
    assert inspection.problems == (), written
    assert {part.name: part.class_shares for part in inspection.parts if part.name != "unlabeled"} == {
        "train": QUARTER,
        "val": QUARTER,
    }
    assert sum(inspection.drawn_from.values()) == made.pairs


def test_ids_of_objects_are_told_by_their_values(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"images/{number}.png")
        ids = np.full((SIDE, SIDE), 7, dtype=np.uint16)
        ids[:16, :16] = 26000 + np.arange(256).reshape(16, 16) % 7 + 7 * number
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(root / f"masks/{number}.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.classes == {"class-7": 0.75, "class-26": 0.25}
    assert "mask_instances: 1000" in made.data.read_text(encoding="utf-8")
    assert inspect_dataset(load_dataset(made.data)).problems == ()


def test_ids_without_a_class_are_objects_of_one(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        image(root / f"images/{number}.png")
        ids = np.zeros((SIDE, SIDE), dtype=np.uint16)
        ids[:16, :16] = 1 + 301 * np.arange(256).reshape(16, 16) // 2 + number
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(root / f"masks/{number}.png")
    made = segshrink.init(root, out=tmp_path / "out")
    assert made.classes == {"background": 0.75, "foreground": 0.25}
    assert inspect_dataset(load_dataset(made.data)).problems == ()


def test_boxes_alone_are_no_masks(tmp_path: Path) -> None:
    root = tmp_path / "data"
    image(root / "images/a.jpg")
    text(root / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"labels/a\.txt .*line 1 is a box, not an outline; export YOLO segmentation"):
        segshrink.init(root, out=tmp_path / "out")
