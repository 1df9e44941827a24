"""A model as a STAC item of the extension Machine Learning Model (MLM), for catalogs and inference services."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segshrink.colors import format_color
from segshrink.export.metadata import ExportedFile, band_names
from segshrink.model_description import ModelDescription
from segshrink.working_size import in_words

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


def stac_items(
    description: ModelDescription, files: Sequence[ExportedFile], *, name: str, parameters: int
) -> dict[str, dict[str, Any]]:
    """Describe exported files of one model as STAC 1.1 items with MLM fields, one for all files that are used alike.

    MLM wants the files of an item to take and give the same. Items have no geometry: where the training images lie
    isn't known.

    Args:
        description: The model's description.
        files: What was exported; named relative to the items.
        name: Name of the model, and of the first file's item; others are called after their first file.
        parameters: How many the model has.

    Returns:
        JSON-able mappings by the names of their files, the first file's first.
    """
    groups: dict[tuple[Any, ...], list[ExportedFile]] = {}
    for file in files:
        groups.setdefault((file.tiles, file.outputs, file.pixels(description)), []).append(file)
    items = {}
    for group in groups.values():
        item_name = name if group[0] is files[0] else group[0].stem
        items[f"{item_name}.stac.json"] = _item(description, group, name=item_name, parameters=parameters)
    return items


def _item(
    description: ModelDescription, files: Sequence[ExportedFile], *, name: str, parameters: int
) -> dict[str, Any]:
    first = files[0]
    bands = [{"name": band} for band in band_names(description)]
    assets: dict[str, Any] = {}
    for file in files:
        framework, artifact, media = _KINDS[file.kind]
        assets |= {part.name: _asset(part) for part in file.parts}
        assets[file.path.name] |= {
            "title": f"Model for {framework}",
            "type": media,
            "mlm:artifact_type": artifact,
            "roles": ["mlm:model", "mlm:weights"],
            "bands": bands,
        }
    properties: dict[str, Any] = {
        "datetime": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "description": f"Semantic segmentation into {len(description.classes)} classes",
        "bands": bands,  # MLM asks for them here, and STAC lets them stand here only where an asset has them, too
        "mlm:name": _mlm_name(name),
        "mlm:architecture": description.id,
        "mlm:tasks": _TASKS,
        "mlm:framework": _KINDS[first.kind][0],
        "mlm:total_parameters": parameters,
        "mlm:accelerator": None,
        "mlm:input": [_input(description, first)],
        "mlm:output": [_output(description, output, tiles=first.tiles) for output in first.outputs],
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


def _asset(path: Path) -> dict[str, Any]:
    """Return a part of a file as an asset that holds weights."""
    return {
        "href": f"./{path.name}",
        "title": "Weights of the .xml file",
        "type": "application/octet-stream",
        "roles": ["mlm:weights"],
        "file:size": path.stat().st_size,
    }


def _input(description: ModelDescription, file: ExportedFile) -> dict[str, Any]:
    count, tiles = description.bands, file.tiles
    return {
        "name": "images",
        "description": f"Raw pixel values; the file {_prepares(description)} itself.",
        "bands": list(band_names(description)),
        "input": {
            "shape": [1, -1, -1, count] if tiles else [-1, count, -1, -1],
            "dim_order": ["batch", "height", "width", "bands"] if tiles else ["batch", "bands", "height", "width"],
            "data_type": file.pixels(description),
        },
        "value_scaling": None,
        "pre_processing_function": None,
    }


def _prepares(description: ModelDescription) -> str:
    resize = "" if description.resize is None else f"brings them to {in_words(description.resize)} and "
    return f"{resize}normalizes them"


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
            {
                "value": number,
                "name": _class_name(text),
                "title": text,
                "description": text,
                "color_hint": format_color(color)[1:],
            }
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
