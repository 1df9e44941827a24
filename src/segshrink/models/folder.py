"""Model folders: ``config.json`` with the description, ``model.safetensors`` with the weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from segshrink import __version__
from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError
from segshrink.files import FolderKind, read_json, replacing
from segshrink.models.description import ModelDescription
from segshrink.models.model import SegmentationModel
from segshrink.models.registry import build_model
from segshrink.models.structure import apply_structure
from segshrink.models.weights import read_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_FOLDER = FolderKind("a model", (CONFIG_FILE, WEIGHTS_FILE))
# Raised when a folder written from now on can't be read by older versions.
FORMAT = 1


def save_model(model: SegmentationModel, folder: Path, *, overwrite: bool = False) -> None:
    """Write a model folder, whole or not at all; a model folder that stood there is replaced.

    Raises:
        FileError: The folder can't be written, or holds anything other than a model and ``overwrite`` isn't given.
    """
    folder = Path(folder)
    config = {"format": FORMAT, "segshrink": __version__, **model.description.to_dict()}
    # Safetensors want plain memory order and no two names for one tensor.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in model.network.state_dict().items()
    }
    with replacing(folder, overwrite=overwrite, kind=MODEL_FOLDER) as temporary:
        temporary.mkdir()
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        try:
            save_file(tensors, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        except SafetensorError as error:
            raise FileError(f"can't write {folder}: {error}; free some space or choose another folder") from error


def load_model(source: str | Path, *, classes: ClassMap | None = None, bands: int | None = None) -> SegmentationModel:
    """Load a model folder, the ``model/`` of a run folder, or build a network by id with random weights.

    Random numbers that others draw from torch are not disturbed by loading a folder.

    Args:
        source: A folder, or an id such as "mobile" or "smp:Unet/resnet34".
        classes: Needed with an id. With a folder: the model must have these class names, in any order.
        bands: Bands of the images, with an id 3 by default. With a folder: the model must take as many.

    Raises:
        FileError: A file of the folder is missing or can't be read.
        ModelError: The folder is damaged, or its model has other classes or bands.
    """
    path = Path(source)
    if path.is_dir():
        return _load_folder(path, classes=classes, bands=bands)
    if path.is_file():
        raise ModelError(f"{path} is a file; give a model folder (with {CONFIG_FILE}) or a run folder")
    identity = str(source)
    if path.is_absolute() or identity.startswith((".", "~")) or ("/" in identity and ":" not in identity):
        raise FileError(f"no model folder at {path}; give a model folder, a run folder or a network id")
    if classes is None:
        # An unknown id is the likelier mistake, so it is named first.
        build_model(identity, ClassMap.build([("any", None, None), ("other", None, None)]))
        raise ModelError(f"'{identity}' is a network without classes; give a model folder, or classes as well")
    return build_model(identity, classes, bands=3 if bands is None else bands)


def _load_folder(folder: Path, *, classes: ClassMap | None, bands: int | None) -> SegmentationModel:
    if not (folder / CONFIG_FILE).is_file() and (folder / "model").is_dir():
        folder = folder / "model"
    if not (folder / CONFIG_FILE).is_file():
        raise FileError(f"{folder} has no {CONFIG_FILE}; give a model folder or a run folder that has model/")
    description = _read_description(folder / CONFIG_FILE)
    _check_match(description, folder, classes=classes, bands=bands)
    tensors = read_tensors(folder / WEIGHTS_FILE)
    with torch.random.fork_rng(devices=[]):
        try:
            model = build_model(
                description.id,
                description.classes,
                bands=description.bands,
                options=description.options,
                sigmoid=description.sigmoid,
            )
            apply_structure(model.network, description.structure or {})
        except ModelError as error:
            raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error
    network = model.network
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise ModelError(
            f"{folder / WEIGHTS_FILE} doesn't fit '{description.id}' of {CONFIG_FILE}: {len(differing)} tensors "
            f"differ, the first is {differing[0]}; save the model again"
        )
    network.load_state_dict(tensors)
    return SegmentationModel(network, description)


def _read_description(path: Path) -> ModelDescription:
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object, found {type(config).__name__}; save the model again")
    if not isinstance(config.get("format"), int) or config["format"] > FORMAT:
        raise ModelError(
            f"{path} has format {config.get('format')!r}, this version of segshrink reads up to {FORMAT}; update it"
        )
    try:
        return ModelDescription.from_dict(config)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_match(description: ModelDescription, folder: Path, *, classes: ClassMap | None, bands: int | None) -> None:
    if classes is not None and set(classes.names) != set(description.classes.names):
        raise ModelError(
            f"the model in {folder} has the classes {', '.join(description.classes.names)}, but "
            f"{', '.join(classes.names)} are asked for; name them alike"
        )
    if bands is not None and bands != description.bands:
        raise ModelError(f"the model in {folder} takes {description.bands} bands, but images have {bands}")
