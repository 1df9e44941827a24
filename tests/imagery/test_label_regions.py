"""Doubted regions written for QGIS, and what was decided about them as pixels."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import Affine

from segshrink.classes import ClassMap
from segshrink.errors import DataError
from segshrink.imagery.label_regions import read_label_regions, regions_of, write_label_regions

CLASSES = ClassMap.build([("ground", None, None), ("house", None, None), ("road", None, None)])
# Columns and rows of two regions.
BOXES = ((3, 2, 13, 8), (20, 10, 25, 28))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=30, width=40, count=1, dtype="uint8", **place):
        pass
    return tmp_path / "a.tif"


def written(image: Path, suffix: str) -> Path:
    path = image.with_name(f"regions{suffix}")
    columns: dict[str, Any] = {"class": np.array(["house", "road"], object), "class_index": [1, 2], "rank": [1, 2]}
    polygons = np.array([shapely.box(*box) for box in BOXES], object)
    write_label_regions(path, image, CLASSES, polygons, columns)
    return path


def decide(path: Path, *decisions: Any, **attributes: Any) -> None:
    """Fill in ``accepted``, as QGIS does."""
    if path.suffix == ".geojson":
        content = json.loads(path.read_text())
        for feature, decision in zip(content["features"], decisions, strict=True):
            feature["properties"] |= {"accepted": decision, **attributes}
        path.write_text(json.dumps(content))
        return
    with sqlite3.connect(path) as database:
        database.create_function("ST_IsEmpty", 1, lambda _: 0)
        for function in ("ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            database.create_function(function, 1, lambda _: 0)
        for rank, decision in enumerate(decisions, start=1):
            database.execute("UPDATE classes SET accepted = ? WHERE rank = ?", (decision, rank))


def inside(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.mark.parametrize(("image", "suffix"), [("photo", ".geojson"), ("scene", ".geojson"), ("scene", ".gpkg")])
def test_decisions_come_back_pixel_by_pixel(image: str, suffix: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(image)
    path = written(source, suffix)
    corrected, doubted = read_label_regions(path, source, CLASSES, (30, 40))
    assert (corrected == 255).all()
    np.testing.assert_array_equal(doubted, inside(BOXES[0]) | inside(BOXES[1]))
    decide(path, "true", None)
    corrected, doubted = read_label_regions(path, source, CLASSES, (30, 40))
    np.testing.assert_array_equal(corrected, np.where(inside(BOXES[0]), 1, 255))
    np.testing.assert_array_equal(doubted, inside(BOXES[1]))
    decide(path, "false", "yes")
    corrected, doubted = read_label_regions(path, source, CLASSES, (30, 40))
    np.testing.assert_array_equal(corrected, np.where(inside(BOXES[1]), 2, 255))
    assert not doubted.any()


def test_areas_are_in_pixels_or_square_meters(photo: Path, scene: Path) -> None:
    for image, key, areas in ((photo, "area_px", [60, 90]), (scene, "area_m2", [15, 22.5])):
        features = json.loads(written(image, ".geojson").read_text())["features"]
        assert [feature["properties"][key] for feature in features] == pytest.approx(areas)
        assert [feature["properties"]["accepted"] for feature in features] == [None, None]


@pytest.mark.parametrize(
    ("decision", "attributes", "message"),
    [("perhaps", {}, "accepted.*perhaps"), (True, {"class": "lake"}, "lake.*ground, house, road")],
)
def test_decisions_without_a_meaning_are_refused(
    photo: Path, decision: Any, attributes: dict[str, Any], message: str
) -> None:
    path = written(photo, ".geojson")
    decide(path, decision, False, **attributes)
    with pytest.raises(DataError, match=message):
        read_label_regions(path, photo, CLASSES, (30, 40))


def test_a_geopackage_needs_a_place(photo: Path) -> None:
    with pytest.raises(DataError, match=r"\.geojson"):
        written(photo, ".gpkg")


def test_the_file_of_a_scene(photo: Path) -> None:
    assert regions_of(photo.parent, "regions") is None
    path = written(photo, ".geojson")
    assert regions_of(photo.parent, "regions") == path
