"""Model folders: ``config.json`` with the description, ``model.safetensors`` with the weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.config import adapter_beside
from segshrink.errors import FileError, ModelError, SegshrinkError, first_line
from segshrink.file_kinds import WEIGHT_SUFFIXES, explain, refuse_no_model, torch_program
from segshrink.files import FolderKind, read_json, replacing
from segshrink.formatting import printable, shortened
from segshrink.library import located
from segshrink.model_description import ModelDescription
from segshrink.model_file import CONFIG_FILE, WEIGHTS_FILE, ModelFile, keras_path, saved_once
from segshrink.models.adapters import WEIGHTS_OPTION, measured_stride
from segshrink.models.dry_run import dry_run
from segshrink.models.empty_parameters import empty_parameters, fill_parameters
from segshrink.models.foreign_folder import load_foreign_folder
from segshrink.models.huggingface import CONFIG_OPTION, HuggingFaceNetwork, try_network
from segshrink.models.keras import load_keras
from segshrink.models.model import SegmentationModel
from segshrink.models.registry import build_model, build_network
from segshrink.models.structure import apply_structure
from segshrink.models.weights import read_tensors
from segshrink.models.whole_weights import load_published
from segshrink.run_folder import RunFolder
from segshrink.user_code import is_function, is_trusted
from segshrink.version import __version__

_LOGGER = logging.getLogger(__name__)
MODEL_FOLDER = FolderKind("a model", (CONFIG_FILE, WEIGHTS_FILE))
# Raised when a folder written from now on can't be read by older versions; without a resize the first one reads it.
FORMAT, _WITHOUT_RESIZE = 2, 1
# Parameters that a network may have while it is built: so many, and so many times those in its file.
_SPARE_TENSORS, _TENSORS_RATIO = 1000, 10


def save_model(model: SegmentationModel, folder: Path, *, overwrite: bool = False) -> None:
    """Write a model folder, whole or not at all; a model folder that stood there is replaced.

    Raises:
        FileError: The folder can't be written, or holds anything other than a model and ``overwrite`` isn't given.
        ModelError: The network has an id of the registry and isn't what that builds, so it couldn't be loaded again.
    """
    folder = Path(folder)
    if not model.description.is_custom:
        _refuse_unloadable(model)
    number = _WITHOUT_RESIZE if model.description.resize is None else FORMAT
    config = {"format": number, "segshrink": __version__, **model.description.to_dict()}
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


def load_model(
    source: str | Path,
    *,
    classes: ClassMap | None = None,
    bands: int | None = None,
    network: nn.Module | None = None,
    trust: bool = False,
) -> SegmentationModel:
    """Load a model folder, the ``model/`` of a run folder, or a file; or build a network by id with random weights.

    What a Keras file ``unet.keras`` doesn't say, its class names and how its pixels are scaled, is read from
    ``unet.keras.yaml`` beside it; what a folder of transformers or segmentation-models-pytorch doesn't say, from
    ``FOLDER.yaml``.

    A model of a folder or file is in eval mode, a network that is built by its id in training mode.

    Random numbers that others draw from torch are not disturbed by loading a folder.

    Args:
        source: A folder, also of transformers or segmentation-models-pytorch, the name of a ready model, a Keras file,
            the published weights of ESPNetv2, or an id such as "mobile" or "smp:Unet/resnet34".
        classes: Needed with an id. With a folder or file: the model must have these class names, in any order.
        bands: Bands of the images, with an id 3 by default. With a folder or file: the model must take as many.
        network: The network that a folder's weights belong to, where no id builds it (``SegmentationModel.wrap``); it
            gets them.
        trust: Let code run that the model names: the function that makes a folder's network; a Keras file's Lambda
            layers, and the module that the file beside it names.

    Raises:
        FileError: A file of the folder is missing or can't be read.
        ModelError: The folder is damaged, its model has other classes or bands, or its weights belong to another
            network.
    """
    if keras_path(source) is not None:
        return _load_keras(ModelFile.find(source), classes=classes, bands=bands, trust=trust)
    path = Path(located(source))
    if path.is_dir():
        return _load_folder(path, classes=classes, bands=bands, network=network, trust=trust)
    if path.is_file():
        refuse_no_model(path)
    if path.suffix.lower() in WEIGHT_SUFFIXES and path.is_file() and torch_program(path) is None:
        model = load_published(path)
        _check_match(model.description, path, classes=classes, bands=bands)
        return model
    if path.is_file():
        raise ModelError(
            explain(path)
            or f"{path} is no model of torch; give a model folder (with {CONFIG_FILE}), a run folder or a Keras file, "
            "of an exported file the model that it was made from"
        )
    identity = str(source)
    if path.is_absolute() or identity.startswith((".", "~")) or ("/" in identity and ":" not in identity):
        raise FileError(f"no model folder at {path}; give a model folder, a run folder or a network id")
    if classes is None and is_function(identity):
        raise ModelError(saved_once(identity))
    if classes is None:
        # An unknown id is the likelier mistake, so it is named first.
        build_model(identity, ClassMap.build([("any", None, None), ("other", None, None)]))
        raise ModelError(f"'{identity}' is a network without classes; give a model folder, or classes as well")
    return build_model(identity, classes, bands=3 if bands is None else bands)


def _load_keras(file: ModelFile, *, classes: ClassMap | None, bands: int | None, trust: bool) -> SegmentationModel:
    adapter = adapter_beside(file)
    if adapter.classes is None:
        _LOGGER.warning(
            "%s doesn't name its classes; name them in order in %s: classes: [..., ...]", file.path, file.adapter
        )
    model = load_keras(file.path, adapter, trust=trust)
    _check_match(model.description, file.path, classes=classes, bands=bands)
    return model


def _load_folder(
    folder: Path, *, classes: ClassMap | None, bands: int | None, network: nn.Module | None, trust: bool
) -> SegmentationModel:
    folder = ModelFile.find(folder).path
    if network is None and (foreign := load_foreign_folder(folder)) is not None:
        _check_match(foreign.description, folder, classes=classes, bands=bands)
        return foreign
    description = read_description(folder)
    _check_match(description, folder, classes=classes, bands=bands)
    if network is None and description.is_custom:
        network = _own_network(description, folder / CONFIG_FILE, trust=trust)
    tensors = read_tensors(folder / WEIGHTS_FILE)
    if network is not None:
        apply_structure(network, description.structure or {})
        _refuse_other_weights(folder, type(network).__name__, network, tensors)
        network.load_state_dict(tensors)
        return SegmentationModel(network, description).eval()
    try:
        network = _build_empty(description, tensors)
    except ModelError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error
    _refuse_other_weights(folder, f"'{description.id}' of {CONFIG_FILE}", network, tensors)
    fill_parameters(network, tensors)
    try:
        if isinstance(network, HuggingFaceNetwork):
            try_network(network)
        stride = measured_stride(network, description.bands)
    except ModelError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error
    if description.stride % stride:
        raise ModelError(
            f"{folder / CONFIG_FILE}: stride must be a multiple of {stride}, that of '{description.id}', found "
            f"{description.stride}; save the model again"
        )
    return SegmentationModel(network, description).eval()


def _own_network(description: ModelDescription, path: Path, *, trust: bool) -> nn.Module:
    """Make the network of a description by its owner's code, where that is trusted.

    Raises:
        ModelError: It isn't, nothing says which function makes it, or that fails.
    """
    if not is_function(description.id):
        raise ModelError(
            f"{path}: '{description.id}' is a network of somebody's own code, which only that code builds; give it: "
            "load_model(folder, network=...), or use the model's .onnx file"
        )
    if not (trust or is_trusted(description.id)):
        raise ModelError(
            f"{path}: the code of '{description.id}' makes this network, and isn't run unasked; if you trust it, give "
            "--trust (in a recipe 'trust: true' beside a teacher, in Python load_model(folder, trust=True)), or use "
            "the model's .onnx file"
        )
    channels = 1 if description.sigmoid else len(description.classes)
    with torch.random.fork_rng(devices=[]):
        network = build_network(description.id, description.options, num_classes=channels, bands=description.bands)
        with suppress(ModelError):  # lazy layers get their weights when they first run; what is wrong is said later
            dry_run(network, bands=description.bands, size=max(64, 3 * description.stride))
        return network


def functions_of(*sources: str | Path) -> list[str]:
    """Return the functions, ``module:function``, that make the networks of model folders, run folders and banks.

    Other sources have none. Nothing is imported.

    Raises:
        FileError: Nothing is at a source, or a folder's ``config.json`` can't be read.
        ModelError: It is damaged, or no model is there.
    """
    names = []
    for source in sources:
        if members := RunFolder(source).members:
            names += functions_of(*members)
        elif Path(source).is_dir() and is_function(name := read_description(ModelFile.find(source).path).id):
            names.append(name)
    return names


def _build_empty(description: ModelDescription, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the network of a description without its weights; nothing is read or downloaded, no named code imported.

    Args:
        description: The description; it may be a stranger's.
        tensors: Weights by name, with which the network is compared; it may have many more while it is built, of a
            head that is taken out again or of blocks that were pruned, but no other order of magnitude.

    Raises:
        ModelError: The description contradicts itself, or there is no such network.
    """
    options = {name: value for name, value in description.options.items() if name != WEIGHTS_OPTION}
    if description.id.startswith("hf:") and CONFIG_OPTION not in options:
        raise ModelError(f"'{description.id}' has no option '{CONFIG_OPTION}', and nothing is read from elsewhere")
    most = _SPARE_TENSORS + _TENSORS_RATIO * len(tensors)
    try:
        with torch.random.fork_rng(devices=[]), empty_parameters(most_tensors=most):
            network = build_network(
                description.id,
                options,
                num_classes=1 if description.sigmoid else len(description.classes),
                bands=description.bands,
            )
            apply_structure(network, description.structure or {})
    except SegshrinkError:
        raise
    except Exception as error:  # options that contradict each other make libraries raise errors of many kinds
        raise ModelError(f"'{description.id}' can't be built with these options ({first_line(error)})") from error
    return network


def _refuse_unloadable(model: SegmentationModel) -> None:
    """Raise ModelError for a network that isn't what its description builds."""
    identity, tensors = model.description.id, model.network.state_dict()
    reason: str | None = None
    try:
        differing = _differing(_build_empty(model.description, tensors), tensors)
    except ModelError as error:
        reason = str(error)
    else:
        reason = f"{len(differing)} tensors differ, the first is {differing[0]}" if differing else None
    if reason is not None:
        raise ModelError(
            f"this network can't be saved as '{identity}', by which it couldn't be built again ({reason}); describe it "
            "as one of your own with SegmentationModel.wrap(model.network, ...), or export it (export_onnx)"
        )


def _refuse_other_weights(folder: Path, name: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError where a folder's weights aren't those of the network of that name."""
    if differing := _differing(network, tensors):
        raise ModelError(
            f"{folder / WEIGHTS_FILE} doesn't fit {name}: {len(differing)} tensors differ, the first is "
            f"{differing[0]}; save the model again, or give the network that was saved"
        )


def _differing(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that a network or a file lacks, or has in another shape."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return sorted(name for name in expected | shapes if expected.get(name) != shapes.get(name))


def read_description(folder: Path) -> ModelDescription:
    """Read what a model folder says about its network, which isn't built.

    Raises:
        FileError: ``config.json`` can't be read.
        ModelError: It is damaged, or of another kind.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object, found {type(config).__name__}; save the model again")
    if "format" not in config:
        raise ModelError(f"{path} is not of a model that segshrink saved; {_advice(config, path.parent)}")
    if not isinstance(config["format"], int) or config["format"] > FORMAT:
        shown = shortened(printable(repr(config["format"])), 60)
        raise ModelError(f"{path} has format {shown}, this version of segshrink reads up to {FORMAT}; update it")
    try:
        return ModelDescription.from_dict(config)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _advice(config: Mapping[str, Any], folder: Path) -> str:
    """Say how the folder of another library is opened."""
    kind, architecture, encoder = (
        printable(shortened(str(config.get(key)), 60)) for key in ("model_type", "_model_class", "encoder_name")
    )
    weights = [path for pattern in ("*.safetensors", "*.bin") for path in sorted(folder.glob(pattern))]
    if "model_type" in config:
        return f"a model of transformers ({kind}) teaches as 'hf:{folder}'"
    if "encoder_name" in config:
        return (
            f"a model of segmentation-models-pytorch teaches as 'smp:{architecture}/{encoder}' with 'weights: "
            f"{next(iter(weights), folder / 'FILE')}'"
        )
    return "give a folder that segshrink wrote, or for another library's weights the network that they belong to"


def _check_match(description: ModelDescription, folder: Path, *, classes: ClassMap | None, bands: int | None) -> None:
    if classes is not None and set(classes.names) != set(description.classes.names):
        raise ModelError(
            f"the model in {folder} has the classes {', '.join(description.classes.names)}, but "
            f"{', '.join(classes.names)} are asked for; name them alike"
        )
    if bands is not None and bands != description.bands:
        raise ModelError(f"the model in {folder} takes {description.bands} bands, but images have {bands}")
