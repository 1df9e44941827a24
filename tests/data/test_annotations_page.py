"""Each description of docs/annotations.md, read against a small folder of its kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from rasterio.transform import Affine

from segshrink.config import DatasetDescription
from segshrink.data import inspect_dataset

PAGE = (Path(__file__).parents[2] / "docs" / "annotations.md").read_text(encoding="utf-8")
DESCRIPTIONS = {
    block["name"]: block for block in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}
SIDE = 16
# The upper half is road, a quarter below a vehicle.
ROAD, VEHICLE = [0, 0, 16, 0, 16, 8, 0, 8], [0, 8, 8, 8, 8, 16, 0, 16]
SHARES = {"background": 0.25, "road": 0.5, "vehicle": 0.25}


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def photo(path: Path) -> None:
    put(path, np.random.default_rng(sum(map(ord, str(path)))).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))


def numbers(road: int, vehicle: int, dtype: Any = np.uint8) -> Any:
    mask = np.zeros((SIDE, SIDE), dtype=dtype)
    mask[:8], mask[8:, :8] = road, vehicle
    return mask


def coco(path: Path, names: list[str], labels: tuple[str, str] = ("road", "vehicle")) -> None:
    images = [{"id": number, "file_name": name, "height": SIDE, "width": SIDE} for number, name in enumerate(names)]
    annotations = [
        {"id": 2 * number + category, "image_id": number, "category_id": category, "segmentation": [outline]}
        for number in range(len(names))
        for category, outline in enumerate((ROAD, VEHICLE))
    ]
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    put(path, {"images": images, "annotations": annotations, "categories": categories})


def streets(root: Path) -> None:
    for name in "abc":
        photo(root / f"images/{name}.jpg")
    coco(root / "annotations.json", ["a.jpg", "b.jpg", "c.jpg"], ("Road", "truck"))


def roboflow(root: Path) -> None:
    for part, name in (("train", "a.jpg"), ("valid", "b.jpg")):
        photo(root / part / name)
        coco(root / part / "_annotations.coco.json", [name])


def yolo(root: Path) -> None:
    for part, name in (("train", "a"), ("val", "b")):
        photo(root / f"images/{part}/{name}.jpg")
        put(root / f"labels/{part}/{name}.txt", "0 0 0 1 0 1 .5 0 .5\n2 0 .5 .5 .5 .5 1 0 1\n")


def labelme(root: Path) -> None:
    for name in "abc":
        photo(root / f"{name}.jpg")
        shapes = [
            {"label": label, "points": [outline[:2], outline[4:6]], "shape_type": "rectangle"}
            for label, outline in (("road", ROAD), ("vehicle", VEHICLE))
        ]
        put(root / f"{name}.json", {"shapes": shapes, "imageHeight": SIDE, "imageWidth": SIDE})


def cvat(root: Path) -> None:
    entries = ""
    for name in "abc":
        photo(root / f"images/{name}.jpg")
        entries += (
            f'<image name="{name}.jpg" width="16" height="16"><box label="road" xtl="0" ytl="0" xbr="16" ybr="8"/>'
            '<polygon label="vehicle" points="0,8;8,8;8,16;0,16"/></image>'
        )
    put(root / "annotations.xml", f"<annotations>{entries}</annotations>")


def folders(root: Path) -> None:
    for name in "abc":
        photo(root / f"images/{name}.jpg")
        put(root / f"masks/road/{name}.png", numbers(255, 0))
        put(root / f"masks/vehicle/{name}.png", numbers(0, 1))


def cityscapes(root: Path) -> None:
    for name in "abc":
        photo(root / f"images/{name}.jpg")
        put(root / f"ids/{name}.png", numbers(7, 26003, np.uint16))


def objects(root: Path) -> None:
    for name in "abc":
        photo(root / f"images/{name}.jpg")
        put(root / f"ids/{name}.png", numbers(311, 4, np.uint16))


def tiles(root: Path) -> None:
    (root / "tiles").mkdir(parents=True)
    corners = []
    for number in range(3):
        left = 5e5 + SIDE * number
        profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
        with rasterio.open(
            root / f"tiles/{number}.tif", "w", transform=Affine(1, 0, left, 0, -1, 5e6), **profile
        ) as dataset:
            dataset.write(np.random.default_rng(number).integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8))
        corners.append([[[left + x, 5e6 - y] for x, y in ((0, 0), (16, 0), (16, 8), (0, 8), (0, 0))]])
    put(
        root / "houses.geojson",
        {
            "type": "Feature",
            "crs": {"type": "name", "properties": {"name": "EPSG:32633"}},
            "properties": {},
            "geometry": {"type": "MultiPolygon", "coordinates": corners},
        },
    )


@pytest.mark.parametrize(
    ("draw", "shares"),
    [
        (streets, {"other": 0.25, "vehicle": 0.25, "road": 0.5}),
        (roboflow, SHARES),
        (yolo, SHARES),
        (labelme, SHARES),
        (cvat, SHARES),
        (folders, SHARES),
        (cityscapes, {"road": 2 / 3, "vehicle": 1 / 3}),
        (objects, {"background": 0.25, "vehicle": 0.75}),
        (tiles, {"background": 0.5, "house": 0.5}),
    ],
)
def test_the_lines_of_each_format_are_ready_to_train(
    draw: Callable[[Path], None], shares: dict[str, float], tmp_path: Path
) -> None:
    draw(tmp_path)
    inspection = inspect_dataset(DatasetDescription.model_validate(DESCRIPTIONS[draw.__name__] | {"root": tmp_path}))
    assert inspection.problems == ()
    assert [part.class_shares for part in inspection.parts] == [shares, shares]


def test_every_description_of_the_page_is_tried() -> None:
    tried = (
        "streets",
        "roboflow",
        "yolo",
        "labelme",
        "cvat",
        "folders",
        "cityscapes",
        "objects",
        "tiles",
        "tiles-of-mine",
    )
    assert tuple(DESCRIPTIONS) == tried
