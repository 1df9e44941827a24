"""Folders of transformers and segmentation-models-pytorch, opened as models of ours; none of their code runs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segshrink.classes import ClassMap
from segshrink.config import adapter_beside
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.model_file import CONFIG_FILE, WEIGHTS_FILE, ModelFile
from segshrink.models.huggingface import load_huggingface
from segshrink.models.model import SegmentationModel
from segshrink.models.whole_weights import load_network

_LOGGER = logging.getLogger(__name__)
# What a file beside such a folder may say.
_SAID = {"classes", "mean", "std"}
# Fields of segmentation-models-pytorch that are no options of the network.
_NO_OPTIONS = ("_model_class", "encoder_name", "encoder_weights", "classes", "in_channels", "activation")


@dataclass(frozen=True)
class SmpFolder:
    """What ``save_pretrained`` of segmentation-models-pytorch wrote.

    Attributes:
        identity: "smp:<Architecture>/<encoder>".
        weights: The file of its weights.
        options: What it was built with.
        bands: Bands of an image.
    """

    identity: str
    weights: Path
    options: Mapping[str, Any]
    bands: int


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``; empty where there is none that can be read."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_transformers(folder: Path) -> bool:
    """Tell whether transformers saved a folder."""
    config = read_config(folder)
    return "format" not in config and isinstance(config.get("model_type"), str)


def smp_folder(folder: Path) -> SmpFolder | None:
    """Return what segmentation-models-pytorch saved in a folder; None: it didn't.

    Raises:
        FileError: It holds no weights.
        ModelError: It doesn't say its architecture.
    """
    config = read_config(folder)
    encoder = config.get("encoder_name")
    if "format" in config or not isinstance(encoder, str):
        return None
    architecture = config.get("_model_class") or _in_card(folder)
    if not isinstance(architecture, str):
        raise ModelError(
            f"{folder} was saved by segmentation-models-pytorch, which didn't write its architecture; give "
            f"{{source: smp:ARCHITECTURE/{encoder}, weights: {folder / WEIGHTS_FILE}}}"
        )
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise FileError(f"{folder} holds no {WEIGHTS_FILE}, the weights of its {architecture}; save it again")
    options = {key: value for key, value in config.items() if key not in _NO_OPTIONS and value is not None}
    bands = config.get("in_channels")
    return SmpFolder(f"smp:{architecture}/{encoder}", weights, options, bands if isinstance(bands, int) else 3)


def load_foreign_folder(folder: Path) -> SegmentationModel | None:
    """Load a folder of transformers or segmentation-models-pytorch; None: it is neither's.

    Class names and scaling that it doesn't say are read from ``FOLDER.yaml`` beside it; pixels of networks of
    segmentation-models-pytorch are else scaled as ImageNet's.

    Raises:
        FileError: A file is missing or can't be read.
        ConfigError: ``FOLDER.yaml`` says what isn't so.
        ModelError: It is no semantic segmentation model, or damaged.
    """
    file = ModelFile(folder)
    if is_transformers(folder):
        model = load_huggingface(str(folder))
        named = getattr(model.network, "class_names", None) is not None
        return _described(model, file, named=named)
    saved = smp_folder(folder)
    if saved is None:
        return None

    def number(count: int) -> ClassMap:
        return ClassMap.build([f"class {place}" for place in range(count)])

    model = load_network(saved.identity, saved.weights, number, bands=saved.bands, options=saved.options)
    return _described(model, file, named=False)


def _described(model: SegmentationModel, file: ModelFile, *, named: bool) -> SegmentationModel:
    adapter = adapter_beside(file)
    if unused := sorted(adapter.model_fields_set - _SAID):
        raise ConfigError(f"{file.path} says '{unused[0]}' itself; leave it out of {file.adapter}")
    names = adapter.class_names()
    if names is None and not named:
        _LOGGER.warning(
            "%s doesn't name its classes; name them in order in %s: classes: [..., ...]", file.path, file.adapter
        )
    if names is not None and len(names) != model.num_classes:
        raise ModelError(
            f"{file.path} tells {model.num_classes} classes apart, but {file.adapter} names {len(names)}; correct it"
        )
    description = model.description
    if names is not None:
        description = replace(description, classes=ClassMap.build(names))
    if adapter.model_fields_set & {"mean", "std"}:
        description = replace(description, normalization=adapter.normalization(description.bands))
    return SegmentationModel(model.network, description).eval()


def _in_card(path: Path) -> str | None:
    """Find the architecture in the model card that segmentation-models-pytorch writes beside the weights."""
    try:
        text = (path / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"^# (\w+) Model Card", text, flags=re.MULTILINE)
    return match[1] if match else None
