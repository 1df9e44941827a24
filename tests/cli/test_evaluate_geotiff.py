"""Data sets of GeoTIFFs with masks as GeoTIFFs or polygons, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine

CLASSES = [{"name": "Ground", "value": 0}, {"name": "Roof", "value": 1}]
HOUSES = {"a": ((4, 6, 20, 12), (30, 30, 10, 20)), "b": ((0, 0, 25, 25),), "c": ((40, 10, 8, 30), (10, 40, 20, 8))}
SIZE = 64


def place(number: int) -> dict[str, Any]:
    return {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5 + 100 * number, 0, -0.5, 5e6)}


def write(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    size = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **options) as dataset:
        dataset.write(pixels.transpose(2, 0, 1))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three scenes of float32 with a strip of NaN and a strip of no-data, masks as GeoTIFF and as GeoJSON."""
    rng = np.random.default_rng(1)
    root = tmp_path / "scenes"
    for number, (name, houses) in enumerate(HOUSES.items()):
        mask = np.zeros((SIZE, SIZE, 1), dtype=np.uint8)
        features = []
        for row, col, height, width in houses:
            mask[row : row + height, col : col + width] = 1
            x, y = 5e5 + 100 * number + 0.5 * col, 5e6 - 0.5 * row
            right, bottom = x + 0.5 * width, y - 0.5 * height
            corners = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
            shape = {"type": "Polygon", "coordinates": [corners]}
            features.append({"type": "Feature", "geometry": shape, "properties": {"kind": "roof"}})
        image = (mask * 0.4 + rng.normal(0.3, 0.05, (SIZE, SIZE, 3))).astype(np.float32)
        image[:, :3] = np.nan
        image[5:9, :] = -1
        write(root / "images" / f"{name}.tif", image, nodata=-1, **place(number))
        write(root / "masks" / f"{name}.tif", mask, **place(number))
        crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
        content = {"type": "FeatureCollection", "crs": crs, "features": features}
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}.geojson").write_text(json.dumps(content))
    return root


def describe(root: Path, name: str, masks: str, **more: Any) -> Path:
    path = root / f"{name}.yaml"
    content = {
        "name": name,
        "images": "images/*.tif",
        "masks": masks,
        "classes": CLASSES,
        "split": {"train": ["a", "b"], "val": ["c"]},
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from segshrink.classes import ClassMap
    from segshrink.models import build_model

    classes = ClassMap.build([(entry["name"], None, entry["value"]) for entry in CLASSES])
    folder = tmp_path_factory.mktemp("models") / "model"
    build_model("unet", classes, options={"width": 4, "depth": 2}).save(folder)
    return folder


def test_polygons_and_rasters_are_scored_alike(segshrink, scenes: Path, model: Path, tmp_path: Path) -> None:
    rasters = describe(scenes, "rasters", "masks/*.tif")
    polygons = describe(scenes, "polygons", "labels/*.geojson", mask_field="kind", mask_background="Ground")
    found = {}
    for data in (rasters, polygons):
        result = segshrink("evaluate", model, "--data", data, "--out", tmp_path / data.stem)
        assert result.status == 0, result.err
        found[data.stem] = json.loads((tmp_path / data.stem / "evaluation.json").read_text())["confusion"]

    assert found["polygons"] == found["rasters"]
    # Rows are the truth: houses and the rest, less what has no value.
    truth = np.zeros((SIZE, SIZE), dtype=bool)
    for row, col, height, width in HOUSES["c"]:
        truth[row : row + height, col : col + width] = True
    valid = np.ones((SIZE, SIZE), dtype=bool)
    valid[:, :3] = False
    valid[5:9] = False
    matrix = np.array(found["polygons"])
    assert matrix.sum(axis=1).tolist() == [(~truth & valid).sum(), (truth & valid).sum()]


def test_inspect_counts_polygons_and_tells_what_is_wrong(segshrink, scenes: Path) -> None:
    good = describe(scenes, "polygons", "labels/*.geojson", mask_field="kind", mask_background="Ground")
    result = segshrink("inspect", good)
    assert result.status == 0, result.out + result.err
    assert "Roof" in result.out

    labels = scenes / "labels" / "a.geojson"
    labels.write_text(labels.read_text().replace('"roof"', '"barn"', 1))
    result = segshrink("inspect", good)
    assert result.status == 1
    assert "barn (240 pixels in labels/a.geojson)" in " ".join(result.out.split())


def test_a_network_learns_from_scenes_with_nan(segshrink, scenes: Path, tmp_path: Path) -> None:
    data = describe(scenes, "polygons", "labels/*.geojson", mask_field="kind", mask_background="Ground")
    recipe = tmp_path / "recipe.yaml"
    learner = {
        "model": {"id": "unet", "options": {"width": 4, "depth": 2}},
        "training": {"epochs": 1, "learning_rate": 0.01, "precision": "32", "threads": 1},
    }
    crops = {"size": 32, "batch_size": 4, "per_epoch": 8, "workers": 0}
    recipe.write_text(json.dumps({"name": "nan", "data": str(data), "crops": crops, "teacher": learner}))

    result = segshrink("train", recipe, "--out", tmp_path / "run")

    assert result.status == 0, result.err
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert np.array(scores["confusion"]).sum() == (SIZE - 3) * (SIZE - 4)


def test_masks_that_lie_elsewhere_are_refused(segshrink, scenes: Path, model: Path) -> None:
    write(scenes / "masks" / "c.tif", np.zeros((SIZE, SIZE, 1), dtype=np.uint8), **place(7))

    result = segshrink("evaluate", model, "--data", describe(scenes, "rasters", "masks/*.tif"))

    assert result.status == 1
    assert "lies elsewhere than its image" in result.sentence


def test_a_background_that_is_no_class_is_refused(segshrink, scenes: Path, model: Path) -> None:
    data = describe(scenes, "polygons", "labels/*.geojson", mask_background="grass")

    assert (
        "mask_background must be one of the classes Ground, Roof"
        in segshrink("evaluate", model, "--data", data).sentence
    )
