"""Masks that don't hold what their classes mean, and polygons that lie elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from segshrink.config import DatasetDescription
from segshrink.data import Inspection, inspect_dataset

RANDOM = np.random.default_rng(4)


def inspected(root: Path, values: list[int], classes: list[dict[str, Any]], **changes: Any) -> Inspection:
    """Inspect four photos whose masks hold some values."""
    for folder in ("i", "m"):
        (root / folder).mkdir(exist_ok=True)
    for number in range(4):
        Image.fromarray(RANDOM.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(root / f"i/{number}.png")
        Image.fromarray(np.resize(np.array(values, np.uint8), (16, 20))).save(root / f"m/{number}.png")
    fields = {"name": "d", "root": root, "images": "i/*.png", "masks": "m/*.png", "classes": classes}
    split = {"train": ["0", "1", "2"], "val": ["3"]}
    return inspect_dataset(DatasetDescription.model_validate({**fields, "split": split, **changes}))


def errors(found: Inspection) -> str:
    return " | ".join(problem.message for problem in found.problems if problem.severity == "error")


TWO = [{"name": "other"}, {"name": "building"}]


@pytest.mark.parametrize(
    ("values", "classes", "proposal"),
    [
        ([0, 255], TWO, "[{name: other, value: 0}, {name: building, value: 255}]"),
        ([0, 255], [{"name": "a", "value": 0}, {"name": "b", "value": 1}], "{name: b, value: 255}]"),
        ([1, 2], TWO, "[{name: other, value: 1}, {name: building, value: 2}]"),
        ([1, 2, 255], TWO, "[{name: other, value: 1}, {name: building, value: 2}]"),
        ([1, 2, 3], [*TWO, {"name": "road"}], "{name: building, value: 2}, {name: road, value: 3}]"),
        ([0, 100], TWO, "{name: building, value: 100}]"),
    ],
)
def test_values_that_mean_something_else_are_proposed(
    tmp_path: Path, values: list[int], classes: list[dict[str, Any]], proposal: str
) -> None:
    found = inspected(tmp_path, values, classes)
    assert not found.sound
    assert proposal in errors(found)
    names = [entry["name"] for entry in classes]
    chosen = [value for value in values if value != 255 or len(values) == len(names)]
    mended = [{"name": name, "value": value} for name, value in zip(names, chosen, strict=True)]
    assert errors(inspected(tmp_path, values, mended)) == ""


def test_zero_beside_one_to_n_is_proposed_to_be_ignored_only_where_a_class_is_absent(tmp_path: Path) -> None:
    sound = inspected(tmp_path, [0, 1], TWO)
    assert sound.sound
    found = inspected(tmp_path, [0, 2, 3], TWO)
    assert "value: 3}] and ignore: [0]" in errors(found)


def test_a_class_that_no_training_mask_has_stops_unless_it_is_allowed(tmp_path: Path) -> None:
    classes = [*TWO, {"name": "water"}]
    found = inspected(tmp_path, [0, 1], classes)
    assert not found.sound
    assert "'water'" in errors(found)
    assert "allow_absent: [water]" in errors(found)
    assert inspected(tmp_path, [0, 1], classes, allow_absent=["water"]).sound


def test_a_class_of_validation_masks_alone_stops_as_well(tmp_path: Path) -> None:
    inspected(tmp_path, [0], TWO)
    Image.fromarray(np.ones((16, 20), np.uint8)).save(tmp_path / "keep.png")
    mask = tmp_path / "m/3.png"
    fields = {"name": "d", "root": tmp_path, "images": "i/*.png", "masks": "m/*.png", "classes": TWO}
    mask.write_bytes((tmp_path / "keep.png").read_bytes())
    split = {"train": ["0", "1", "2"], "val": ["3"]}
    found = inspect_dataset(DatasetDescription.model_validate({**fields, "split": split}))
    assert "'building' can't be learned: no training mask" in errors(found)


def square(left: float, bottom: float, side: float) -> list[list[float]]:
    right, top = left + side, bottom + side
    return [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]


def degrees(corners: list[list[float]], *, swapped: bool = False) -> list[list[float]]:
    xs, ys = transform(CRS.from_epsg(32633), CRS.from_epsg(4326), *zip(*corners, strict=True))
    return [[y, x] if swapped else [x, y] for x, y in zip(xs, ys, strict=True)]


UTM = square(500020, 4999950, 20)


@pytest.mark.parametrize(
    ("corners", "crs", "cause"),
    [
        (degrees(UTM), None, None),
        (UTM, "EPSG:32633", None),
        (degrees(UTM, swapped=True), None, "latitude stands first"),
        (degrees(UTM, swapped=True), "EPSG:4326", "latitude stands first"),
        ([[y, x] for x, y in UTM], "EPSG:32633", "latitude stands first"),
        (UTM, "EPSG:32634", "already"),
        (degrees(UTM), "EPSG:32633", "longitudes and latitudes"),
        (square(3, 4, 30), "EPSG:32633", "pixels"),
        (square(600000, 4999950, 20), "EPSG:32633", "another image"),
    ],
)
def test_polygons_that_lie_elsewhere_are_told_with_the_cause(
    tmp_path: Path, corners: list[list[float]], crs: str | None, cause: str | None
) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    for number in range(3):
        place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
        size = {"height": 60, "width": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"i/{number}.tif", "w", driver="GTiff", **place, **size) as file:
            file.write(RANDOM.integers(0, 256, (3, 60, 64), dtype=np.uint8))
        drawn = corners if number == 1 else UTM
        named = crs if number == 1 else "EPSG:32633"
        content: dict[str, Any] = {"type": "Polygon", "coordinates": [drawn]}
        if named:
            content["crs"] = {"type": "name", "properties": {"name": named}}
        (tmp_path / f"m/{number}.geojson").write_text(json.dumps(content))
    description = {
        "name": "d", "root": tmp_path, "images": "i/*.tif", "masks": "m/*.geojson", "classes": TWO,
        "split": {"train": ["0", "1"], "val": ["2"]},
    }  # fmt: skip
    found = inspect_dataset(DatasetDescription.model_validate(description))
    assert found.sound == (cause is None)
    if cause is not None:
        assert "m/1.geojson" in errors(found)
        assert cause in errors(found)


@pytest.mark.parametrize("measured", [False, True])
def test_a_measured_band_that_is_marked_as_transparency_is_told(tmp_path: Path, measured: bool) -> None:
    inspected(tmp_path, [0, 1], TWO)
    for number in range(4):
        pixels = RANDOM.integers(1, 255, (16, 20, 4), dtype=np.uint8)
        if not measured:
            pixels[:, :, 3] = 255
        Image.fromarray(pixels).save(tmp_path / f"i/{number}.png")
    fields = {"name": "d", "root": tmp_path, "images": "i/*.png", "masks": "m/*.png", "classes": TWO}
    split = {"train": ["0", "1", "2"], "val": ["3"]}
    found = inspect_dataset(DatasetDescription.model_validate({**fields, "split": split}))
    told = " | ".join(problem.message for problem in found.problems)
    assert ("bands: 4" in told) == measured
    assert found.images[0].bands == 3
