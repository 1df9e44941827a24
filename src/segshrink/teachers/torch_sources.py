"""Teachers that are networks of torch: folders, networks of libraries, and what a user's function makes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.models import SegmentationModel, load_model, read_tensors
from segshrink.models.huggingface import load_huggingface
from segshrink.models.whole_weights import load_network, published_classes
from segshrink.teachers.adapter_files import adapter_of, class_names
from segshrink.teachers.mapping import map_classes
from segshrink.teachers.torch_adapter import AdaptedNetwork, adapter_normalization
from segshrink.teachers.torch_teacher import TorchTeacher
from segshrink.teachers.user_functions import call_function, is_function

_LOGGER = logging.getLogger(__name__)
# Settings of an adapter that a network can't follow by itself; scaling and classes are settings of the model.
_WRAPPING = {"layout", "size", "order", "dtype", "output_name"}
_KINDS = (
    "a run or model folder, smp:ARCHITECTURE/ENCODER, torchvision:NAME, hf:FOLDER or hub name, module:function, "
    "onnx:FILE, tflite:FILE or labels:FOLDER"
)
# Side of the images that a foreign network is tried with.
_TRIAL = 64


@dataclass(frozen=True)
class _Opened:
    """A network, the class names that it brings, and what its answers depend on besides its class and weights."""

    network: nn.Module
    names: tuple[str, ...] | None
    origin: str = ""


def open_torch(source: TeacherSource, classes: ClassMap, *, bands: int) -> TorchTeacher:
    """Open a network of torch as a teacher.

    A network that doesn't name its classes must have as many as the student, in the student's order.

    Args:
        source: Where it is, its adapter, and which of its classes stand for which of the student's.
        classes: The student's classes.
        bands: Bands of the images.

    Raises:
        FileError: A file is missing or can't be read.
        ConfigError: The adapter contradicts itself or the images, or the source says what it can't use.
        ModelError: The network is damaged, fails, or has no class or other bands than the student.
        MissingExtraError: The library that builds it isn't installed.
    """
    adapter = adapter_of(source)
    given = class_names(adapter)
    opened = _open(source, given, classes, bands)
    names = given or opened.names
    module = _adapted(opened, adapter, source.source, bands=bands, classes=len(names or classes))
    count = _count(module, bands, source.source)
    if names is None:
        names = _taken_for(classes, count, source.source)
    elif len(names) != count and not (count == 1 and len(names) == 2):
        raise ModelError(
            f"{source.source} answers with {count} classes, but {len(names)} are named; correct its adapter's 'classes'"
        )
    try:
        mapping = map_classes(classes.names, names, source.classes)
    except ModelError as error:
        raise ModelError(f"{source.source}: {error}") from error
    output = "logits" if adapter.output == "labels" else adapter.output
    scaling = adapter_normalization(adapter, bands) if adapter.model_fields_set & {"mean", "std"} else None
    return TorchTeacher(module, classes, mapping, output=output, scaling=scaling, name=source.source)


def _open(source: TeacherSource, given: tuple[str, ...] | None, classes: ClassMap, bands: int) -> _Opened:
    """Open what a source names; ``given`` are the class names that its adapter has."""
    family, _, name = source.source.partition(":")
    if family in ("smp", "torchvision"):
        return _library_network(source, given, classes, bands)
    if is_function(source.source) and not Path(source.source).exists():
        return _function_network(source)
    for key in ("weights", "options"):
        if getattr(source, key):
            raise ConfigError(f"the teacher {source.source} holds a whole network and takes no '{key}'; leave it out")
    if family != "hf" and not Path(source.source).is_dir():
        raise FileError(f"no teacher at {source.source}; give {_KINDS}")
    model = load_huggingface(name) if family == "hf" else load_model(source.source)
    numbered = family == "hf" and getattr(model.network, "class_names", None) is None
    return _Opened(model, None if numbered else model.description.classes.names)


def _library_network(source: TeacherSource, given: tuple[str, ...] | None, classes: ClassMap, bands: int) -> _Opened:
    if source.weights is None:
        hint = ", or the name of weights that torchvision publishes" if source.source.startswith("torchvision:") else ""
        raise ConfigError(
            f"the teacher {source.source} would have random weights; give the file of trained ones as 'weights'{hint}"
        )

    def named(count: int) -> ClassMap:
        own = given or published_classes(source.source, count)
        if own is not None and len(own) == count:
            return ClassMap.build([(text, None, None) for text in own])
        if count == len(classes):
            return classes
        return ClassMap.build([(str(number), None, None) for number in range(count)])

    model = load_network(
        source.source, source.weights, named, bands=bands, options=source.options, likely_classes=len(classes)
    )
    return _Opened(model, published_classes(source.source, len(model.description.classes)))


def _function_network(source: TeacherSource) -> _Opened:
    network = call_function(source.source, source.options)
    if source.weights is not None:
        tensors = read_tensors(source.weights)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            told = " ".join(str(error).split())[:200]
            raise ModelError(f"{source.weights} doesn't fit the network of '{source.source}': {told}") from error
    origin = json.dumps([source.source, source.options], sort_keys=True, default=str)
    names = network.description.classes.names if isinstance(network, SegmentationModel) else None
    return _Opened(network, names, origin)


def _adapted(opened: _Opened, adapter: Adapter, name: str, *, bands: int, classes: int) -> nn.Module:
    """Give a network the scaling that its adapter says, and wrap it where that isn't enough."""
    network, said = opened.network, adapter.model_fields_set
    ours = isinstance(network, SegmentationModel)
    if isinstance(network, SegmentationModel):
        if network.description.bands != bands:
            raise ModelError(f"the model in {name} takes {network.description.bands} bands, but images have {bands}")
        if said & {"mean", "std"}:
            scaling = adapter_normalization(adapter, bands)
            network = SegmentationModel(network.network, replace(network.description, normalization=scaling))
        if not said & _WRAPPING and adapter.output != "labels":
            return network.eval()
    return AdaptedNetwork(
        network, adapter, bands=bands, classes=classes, scaled=not ours, name=name, origin=opened.origin
    ).eval()


def _count(module: nn.Module, bands: int, name: str) -> int:
    """Return how many scores a pixel gets; a foreign network is run once to see it."""
    if isinstance(module, SegmentationModel):
        return module.num_classes
    try:
        with torch.no_grad():
            return int(module(torch.zeros(1, bands, _TRIAL, _TRIAL)).shape[1])
    except (ConfigError, ModelError):
        raise
    except Exception as error:  # anything may go wrong in a foreign network
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"{name} failed on an image of {bands} x {_TRIAL} x {_TRIAL} ({told}); say in its adapter how it takes "
            "images ('layout', 'dtype', 'size')"
        ) from error


def _taken_for(classes: ClassMap, count: int, name: str) -> tuple[str, ...]:
    """Take unnamed classes for the student's, where they are as many."""
    if count != len(classes) and not (count == 1 and len(classes) == 2):
        raise ModelError(
            f"{name} answers with {count} classes and doesn't name them, and the data set has {len(classes)}; name its "
            "classes in order in its adapter ('classes')"
        )
    _LOGGER.warning("%s doesn't name its classes; they are taken for %s", name, ", ".join(classes.names))
    return classes.names
