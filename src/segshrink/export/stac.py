"""A model as a STAC item of the extension Machine Learning Model (MLM), for catalogues and inference services."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segshrink.classes import format_color
from segshrink.models import ModelDescription

# https://github.com/stac-extensions/mlm; the version whose schema the tests check against.
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_TASKS = ["semantic-segmentation"]
# By suffix: what MLM calls the framework, the kind of artifact, and the media type.
_KINDS = {
    ".onnx": ("ONNX", "onnx", "application/octet-stream; framework=onnx"),
    ".xml": ("OpenVINO", "openvino", "application/xml; framework=openvino"),
    ".tflite": ("LiteRT", "tflite", "application/octet-stream; framework=litert"),
}


def stac_item(
    description: ModelDescription,
    files: Sequence[Path],
    *,
    name: str,
    parameters: int,
    outputs: Sequence[str],
    float_pixels: bool,
) -> dict[str, Any]:
    """Describe exported files of one model as a STAC 1.1 item with MLM fields.

    The item has no geometry: where the training images lie isn't known.

    Args:
        description: The model's description.
        files: What was exported; named relative to the item.
        name: Name of the item.
        parameters: How many the model has.
        outputs: What the files give.
        float_pixels: Whether the first file takes float32 whatever pixels the model was trained on.

    Returns:
        A JSON-able mapping.
    """
    bands = band_names(description)
    tiles = files[0].suffix == ".tflite"
    assets = {path.name: _asset(path) for path in files}
    properties: dict[str, Any] = {
        "datetime": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "description": f"Semantic segmentation into {len(description.classes)} classes",
        "bands": [{"name": band} for band in bands],
        "mlm:name": _mlm_name(name),
        "mlm:architecture": description.id,
        "mlm:tasks": _TASKS,
        "mlm:framework": _KINDS[files[0].suffix][0],
        "mlm:total_parameters": parameters,
        "mlm:accelerator": None,
        "mlm:input": [_input(description, bands, float_pixels, tiles=tiles)],
        "mlm:output": [_output(description, output, tiles=tiles) for output in outputs],
    }
    if description.resolution is not None:
        properties["gsd"] = description.resolution
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, FILE],
        "id": name,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def band_names(description: ModelDescription) -> tuple[str, ...]:
    """Return the names of a model's bands; red, green and blue are meant where three have none."""
    if description.band_names is not None:
        return description.band_names
    known = {1: ("grey",), 3: ("red", "green", "blue")}
    return known.get(description.bands, tuple(f"band {number}" for number in range(1, description.bands + 1)))


def _asset(path: Path) -> dict[str, Any]:
    roles = {"roles": ["mlm:model", "mlm:weights"], "file:size": path.stat().st_size}
    if path.suffix == ".bin":
        weights = {"href": f"./{path.name}", "title": "Weights of the .xml file", "type": "application/octet-stream"}
        return {**weights, **roles, "roles": ["mlm:weights"]}
    framework, artifact, media = _KINDS[path.suffix]
    return {
        "href": f"./{path.name}",
        "title": f"Model for {framework}",
        "type": media,
        "mlm:artifact_type": artifact,
        **roles,
    }


def _input(description: ModelDescription, bands: Sequence[str], float_pixels: bool, *, tiles: bool) -> dict[str, Any]:
    count = description.bands
    return {
        "name": "images",
        "description": "Raw pixel values; the file normalises them itself.",
        "bands": list(bands),
        "input": {
            "shape": [1, -1, -1, count] if tiles else [-1, count, -1, -1],
            "dim_order": ["batch", "height", "width", "bands"] if tiles else ["batch", "bands", "height", "width"],
            "data_type": "uint8" if description.dtype == "uint8" and not float_pixels else "float32",
        },
        "value_scaling": None,
        "pre_processing_function": None,
    }


def _output(description: ModelDescription, output: str, *, tiles: bool) -> dict[str, Any]:
    classes = description.classes
    dimensions = {"batch": -1, "classes": len(classes), "height": -1, "width": -1}
    if output == "classes":
        del dimensions["classes"]
    elif tiles:
        dimensions = {"batch": 1, "height": -1, "width": -1, "classes": len(classes)}
    return {
        "name": output,
        "tasks": _TASKS,
        "result": {
            "shape": list(dimensions.values()),
            "dim_order": list(dimensions),
            "data_type": "uint8" if output == "classes" else "float32",
        },
        "classification:classes": [
            {"value": number, "name": _class_name(text), "title": text, "color_hint": format_color(color)[1:]}
            for number, (text, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        ],
        "post_processing_function": None,
    }


def _class_name(text: str) -> str:
    """Return a name as the classification extension wants it, of letters, digits, hyphens and underscores."""
    return re.sub(r"[^0-9A-Za-z_-]+", "_", text).strip("_") or "class"


def _mlm_name(name: str) -> str:
    """Return a name as MLM wants it: a letter first, a letter or digit last, three characters at least."""
    cleaned = re.sub(r"[^0-9A-Za-z_.\-\s]+", "-", name).strip("-_. ")
    return cleaned if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", cleaned) else f"model-{cleaned or 0}"
