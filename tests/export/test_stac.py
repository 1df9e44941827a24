"""The STAC item against the published schemas of STAC 1.1.0 and of the extensions that it names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import referencing
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing.jsonschema import DRAFT7

from segshrink.export.card import model_card
from segshrink.export.metadata import ExportedFile
from segshrink.export.stac import stac_items

CORE = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
SCHEMAS = Path(__file__).resolve().parents[1] / "data" / "stac"
MLM_NAME = r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"
DATA_TYPES = {"uint8", "float32"}


@pytest.fixture
def files(tmp_path):
    for number, name in enumerate(("s.onnx", "s.xml", "s.bin")):
        (tmp_path / name).write_bytes(b"x" * (number + 1))
    return [ExportedFile(tmp_path / "s.onnx"), ExportedFile(tmp_path / "s.xml")]


@pytest.fixture
def all_files(tmp_path, files):
    for name in ("s.qgis.onnx", "s.tflite"):
        (tmp_path / name).write_bytes(b"x")
    qgis = ExportedFile(tmp_path / "s.qgis.onnx", ("probabilities",), float_pixels=True)
    return [*files, qgis, ExportedFile(tmp_path / "s.tflite", ("logits",))]


def items_of(model, files, *, name="s"):
    return json.loads(json.dumps(stac_items(model.description, files, name=name, parameters=12)))


def item_of(model, files, *, name="s"):
    (item,) = items_of(model, files, name=name).values()
    return item


def broken_rules(item):
    """What the schemas of STAC itself and of the extensions that the item names have against it."""
    schemas = get_local_schema_cache()
    for path in SCHEMAS.glob("*.json"):
        # The file names say under which address a schema is published; the one of "processing" calls itself otherwise.
        address = f"https://stac-extensions.github.io/{path.stem.replace('-v', '/v')}/schema.json"
        schemas[address] = json.loads(path.read_text(encoding="utf-8"))
    registry = referencing.Registry().with_resources(
        (name, referencing.Resource(schema, DRAFT7)) for name, schema in schemas.items()
    )
    validators = [Draft7Validator(schemas[name], registry=registry) for name in (CORE, *item["stac_extensions"])]
    return [error.message for validator in validators for error in validator.iter_errors(item)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0), (3, 1), (0, 3), (1,)])
def test_items_keep_to_the_published_schemas(small, all_files, order):
    for item in items_of(small, [all_files[number] for number in order]).values():
        assert broken_rules(item) == []
        del item["properties"]["mlm:output"][0]["classification:classes"][0]["description"]
        assert broken_rules(item)


@pytest.mark.parametrize("name", ["S.ONNX", "S.XML", "S.TFLITE"])
def test_capital_suffixes_mean_the_same(small, tmp_path, name):
    for written in (name, name.lower(), "S.bin", "s.bin"):
        (tmp_path / written).write_bytes(b"x")
    capital, small_letters = (item_of(small, [ExportedFile(tmp_path / each)]) for each in (name, name.lower()))
    assert len(capital["assets"]) == len(small_letters["assets"])
    for key in ("mlm:framework", "mlm:input", "mlm:output"):
        assert capital["properties"][key] == small_letters["properties"][key]
    card = model_card(small.description, [ExportedFile(tmp_path / name)], name="s", parameters=12)
    assert card.count("import onnxruntime") == (name == "S.ONNX")


def test_files_that_are_used_alike_share_an_item(small, all_files):
    items = items_of(small, all_files)
    assert {name: list(item["assets"]) for name, item in items.items()} == {
        "s.stac.json": ["s.onnx", "s.xml", "s.bin"],
        "s.qgis.stac.json": ["s.qgis.onnx"],
        "s.tflite.stac.json": ["s.tflite"],
    }
    assert list(items_of(small, all_files[::-1])) == ["s.stac.json", "s.qgis.stac.json", "s.xml.stac.json"]
    told = {name: item["properties"] for name, item in items.items()}
    takes = {name: properties["mlm:input"][0]["input"] for name, properties in told.items()}
    assert [found["data_type"] for found in takes.values()] == ["uint8", "float32", "uint8"]
    assert takes["s.tflite.stac.json"]["dim_order"] == ["batch", "height", "width", "bands"]
    gives = [[output["name"] for output in properties["mlm:output"]] for properties in told.values()]
    assert gives == [["logits", "classes"], ["probabilities"], ["logits"]]
    assert [properties["mlm:framework"] for properties in told.values()] == ["ONNX", "ONNX", "LiteRT"]


def test_item_has_what_the_schema_requires(small, files):
    item = item_of(small, files)
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
    item = item_of(small, files)
    properties = item["properties"]
    (takes,) = properties["mlm:input"]
    assert takes["input"] == {
        "shape": [-1, 3, -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "uint8",
    }
    assert takes["value_scaling"] is None  # the file scales inside
    assert takes["bands"] == [band["name"] for band in item["assets"]["s.onnx"]["bands"]] == ["red", "green", "blue"]
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
        properties = item_of(small, [replace(files[0], outputs=("probabilities",))])["properties"]
    finally:
        small.description = kept
    assert properties["mlm:input"][0]["bands"] == ["r", "g", "nir"]
    assert properties["mlm:input"][0]["input"]["data_type"] == "float32"
    assert [output["name"] for output in properties["mlm:output"]] == ["probabilities"]


def test_tflite_files_take_one_tile(small, tmp_path):
    (tmp_path / "s.tflite").write_bytes(b"x")
    properties = item_of(small, [ExportedFile(tmp_path / "s.tflite", ("logits",))])["properties"]
    takes, gives = properties["mlm:input"][0]["input"], properties["mlm:output"][0]["result"]
    assert dict(zip(takes["dim_order"], takes["shape"], strict=True))["bands"] == 3
    assert (takes["shape"], gives["shape"]) == ([1, -1, -1, 3], [1, -1, -1, 4])
