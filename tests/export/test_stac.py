"""The STAC item against what version 1.5.2 of the MLM extension's schema asks for."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from segshrink.export.stac import stac_item

MLM_NAME = r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"
DATA_TYPES = {"uint8", "float32"}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("s.onnx", "s.xml", "s.bin")]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * (number + 1))
    return paths


def item_of(model, files, **changes):
    options = {"name": "s", "parameters": 12, "outputs": ("logits", "classes"), "float_pixels": False} | changes
    return stac_item(model.description, files, **options)


def test_item_has_what_the_schema_requires(small, files):
    item = json.loads(json.dumps(item_of(small, files)))
    assert set(item) >= {"type", "stac_version", "stac_extensions", "id", "geometry", "properties", "links", "assets"}
    assert (item["type"], item["stac_version"], item["geometry"]) == ("Feature", "1.1.0", None)
    assert "https://stac-extensions.github.io/mlm/v1.5.2/schema.json" in item["stac_extensions"]
    properties = item["properties"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", properties["datetime"])
    assert set(properties) >= {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"}
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert properties["mlm:total_parameters"] == 12
    assert properties["gsd"] == 0.3
    assert not {"mlm:artifact_type", "mlm:compile_method", "mlm:entrypoint"} & set(properties)


def test_inputs_and_outputs_are_described(small, files):
    properties = item_of(small, files)["properties"]
    (takes,) = properties["mlm:input"]
    assert takes["input"] == {
        "shape": [-1, 3, -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "uint8",
    }
    assert takes["value_scaling"] is None  # the file scales inside
    assert takes["bands"] == [band["name"] for band in properties["bands"]] == ["red", "green", "blue"]
    for gives in properties["mlm:output"]:
        result = gives["result"]
        assert len(result["shape"]) == len(result["dim_order"]) == len(set(result["dim_order"]))
        assert result["data_type"] in DATA_TYPES
        assert [entry["value"] for entry in gives["classification:classes"]] == [0, 1, 2, 3]
        assert all(re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"]) for entry in gives["classification:classes"])
        assert all(re.fullmatch(r"[0-9A-F]{6}", entry["color_hint"]) for entry in gives["classification:classes"])


def test_only_models_are_models(small, files):
    assets = item_of(small, files)["assets"]
    assert {name: asset["file:size"] for name, asset in assets.items()} == {"s.onnx": 1, "s.xml": 2, "s.bin": 3}
    for asset in assets.values():
        assert ("mlm:model" in asset["roles"]) == ("mlm:artifact_type" in asset)
    assert "mlm:model" not in assets["s.bin"]["roles"]


@pytest.mark.parametrize("name", ["s", "7", "Schüler 1", "ab", "student-v2.", "_", "a/b c"])
def test_every_name_becomes_one_that_the_schema_takes(small, files, name):
    assert re.fullmatch(MLM_NAME, item_of(small, files, name=name)["properties"]["mlm:name"])


def test_named_bands_and_float_pixels_are_kept(small, files):
    small.description, kept = (
        replace(small.description, band_names=("r", "g", "nir"), dtype="uint16"),
        small.description,
    )
    try:
        properties = item_of(small, files, outputs=("probabilities",))["properties"]
    finally:
        small.description = kept
    assert properties["mlm:input"][0]["bands"] == ["r", "g", "nir"]
    assert properties["mlm:input"][0]["input"]["data_type"] == "float32"
    assert [output["name"] for output in properties["mlm:output"]] == ["probabilities"]


def test_tflite_files_take_one_tile(small, tmp_path):
    (tmp_path / "s.tflite").write_bytes(b"x")
    properties = item_of(small, [tmp_path / "s.tflite"], outputs=("logits",))["properties"]
    takes, gives = properties["mlm:input"][0]["input"], properties["mlm:output"][0]["result"]
    assert dict(zip(takes["dim_order"], takes["shape"], strict=True))["bands"] == 3
    assert (takes["shape"], gives["shape"]) == ([1, -1, -1, 3], [1, -1, -1, 4])
