"""Opening the teachers that a recipe names."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource, Teaching, adapter_of
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.files import content_key, expanded
from segshrink.model_file import keras_path
from segshrink.models import SegmentationModel, load_model
from segshrink.models.dry_run import unwrapped
from segshrink.models.huggingface import load_huggingface
from segshrink.models.keras import load_keras
from segshrink.models.own_network import call_network
from segshrink.models.whole_weights import load_network, load_whole, published_classes
from segshrink.prediction.pixel_units import tell_unscaled
from segshrink.run_folder import RunFolder
from segshrink.teachers.augmented import Augmented
from segshrink.teachers.bank import Bank
from segshrink.teachers.black_box import open_black_box
from segshrink.teachers.ensemble import Ensemble
from segshrink.teachers.label_folder import LabelFolder
from segshrink.teachers.mapping import map_classes
from segshrink.teachers.recognition import KINDS, recognized
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_programs import open_program
from segshrink.teachers.torch_teacher import AdaptedNetwork, TorchTeacher
from segshrink.user_code import is_function

_LOGGER = logging.getLogger(__name__)
_NETWORKS = ("smp", "torchvision", "espnetv2")
_FILES = ("onnx", "tflite", "keras", "labels", "torchscript", "exported")
_PROGRAMS = ("torchscript", "exported")
# Settings of an adapter that a network can't follow by itself; scaling and classes are settings of the model.
_WRAPPING = {"layout", "size", "order", "dtype", "output_name"}
# Side of the images that a foreign network is tried with.
_TRIAL = 64
# Height and width of another, which those for images of one size refuse.
_OTHER_TRIAL = (96, 128)


@dataclass(frozen=True)
class _Opened:
    """A network, the class names that it brings, and what its answers depend on besides its class and weights."""

    network: nn.Module
    names: tuple[str, ...] | None
    origin: str = ""


def open_teachers(teaching: Teaching, classes: ClassMap, *, bands: int = 3) -> Teacher:
    """Open all teachers of a student as one.

    Each one's answers are averaged over mirror images and zooms first, then those of several.

    Args:
        teaching: The teachers, and how their answers become one.
        classes: The student's classes; the teachers' are matched by name.
        bands: Bands of the images.

    Raises:
        ConfigError: No teacher is named.
        SegshrinkError: As ``open_teacher``.
    """
    if not teaching.teachers:
        raise ConfigError("no teacher is named; list one under 'distillation.teachers' or give --teacher")
    opened = []
    for source in teaching.teachers:
        teacher = open_teacher(source, classes, bands=bands, out_of_fold=teaching.out_of_fold)
        # Answers that are looked up by a scene's name don't depend on its pixels.
        plain = isinstance(teacher, LabelFolder) or not (teaching.flips or teaching.scales != [1.0])
        opened.append(teacher if plain else Augmented(teacher, flips=teaching.flips, scales=teaching.scales))
    if len(opened) == 1:
        return opened[0]
    return Ensemble(opened, [source.weight for source in teaching.teachers], combine=teaching.combine)


def open_teacher(
    source: str | Path | TeacherSource, classes: ClassMap, *, bands: int = 3, out_of_fold: bool = False
) -> Teacher:
    """Open one teacher for a student with ``classes``.

    One that doesn't name its classes must have as many as the student, in the student's order.

    Args:
        source: Run or model folder, bank, or a source as recipes write it.
        classes: The student's classes; the teacher's are matched by name.
        bands: Bands of the images.
        out_of_fold: Of a bank, only members that haven't seen a training image answer about it, where there are such.

    Raises:
        ConfigError: The adapter contradicts itself, the file or the images, or the source says what it can't use.
        FileError: A file is missing or can't be read.
        DataError: Two label maps have the same scene's name.
        ModelError: The teacher is damaged, fails, or has no class or other bands than the student.
        MissingExtraError: A library that it needs isn't installed.
    """
    if not isinstance(source, TeacherSource):
        source = TeacherSource(source=str(source))
    source = recognized(source)
    kind, _, name = source.source.partition(":")
    for key in () if kind in _NETWORKS or _is_function(source) else ("weights", "options"):
        if getattr(source, key):
            raise ConfigError(f"the teacher {source.source} is whole and takes no '{key}'; leave it out")
    if kind in _FILES and not name:
        raise ConfigError(f"teacher '{source.source}' has no path; write {kind}:PATH")
    adapter = adapter_of(source)
    runs_code = {"trust": source.trust and not Path(source.source).is_dir(), "module": adapter.module}
    if keras_path(source.source) is None and (given := [key for key, value in runs_code.items() if value]):
        raise ConfigError(f"the teacher {source.source} is no Keras file and takes no '{given[0]}'; leave it out")
    names = adapter.class_names()
    if kind in ("onnx", "tflite"):
        return open_black_box(source, names, classes, bands=bands)
    if kind == "labels":
        mapping = map_classes(classes.names, names or classes.names, source.classes, name=source.source)
        return LabelFolder(expanded(name), adapter, names or classes.names, classes, mapping, name=source.source)
    if (bank := RunFolder(source.source)).has_bank:
        named = [source.model_copy(update={"source": str(run)}) for run in bank.members]
        members = [open_teacher(member, classes, bands=bands) for member in named]
        return Bank(members, bank.bank(), out_of_fold=out_of_fold, name=source.source)
    return _open_torch(source, adapter, names, classes, bands)


def open_bank(folder: str | Path, *, out_of_fold: bool = False) -> Teacher:
    """Open a bank as its recipe asks it, with its mirror images and zooms.

    Args:
        folder: Where it was trained.
        out_of_fold: As in ``open_teacher``.

    Raises:
        FileError: The folder holds no bank, or a file of it is missing.
        ModelError: A member is damaged.
    """
    bank = RunFolder(folder)
    bank.bank()
    description = load_model(bank.member(0).path).description
    changes = {"teachers": [TeacherSource(source=str(folder))], "out_of_fold": out_of_fold}
    teaching = bank.recipe().distillation.model_copy(update=changes)
    return open_teachers(teaching, description.classes, bands=description.bands)


def is_data(source: TeacherSource) -> bool:
    """Tell whether a teacher is opened by reading local files alone: it runs no code and asks no network."""
    kind = source.source.partition(":")[0]
    if kind in _NETWORKS:
        asks = any("weights" in key for key in source.options)
        return source.weights is not None and source.weights.is_file() and not asks
    is_path = Path(source.source).is_dir() or (kind == source.source and Path(kind).is_file())
    local = kind in _FILES or keras_path(source.source) is not None or is_path
    return local and not source.trust


def _open_torch(
    source: TeacherSource, adapter: Adapter, named: tuple[str, ...] | None, classes: ClassMap, bands: int
) -> TorchTeacher:
    """Open a network of torch; ``named`` are the class names in its adapter."""
    if keras_path(source.source):
        opened, adapter = _Opened(load_keras(source.source, adapter, trust=source.trust), named), Adapter()
    else:
        opened = _opened(source, named, classes, bands)
    names = named or opened.names
    module = _adapted(opened, adapter, source.source, bands=bands, classes=len(names or classes))
    count = _count(module, bands, source.source)
    if count != len(names or classes) and not (count == 1 and len(names or classes) == 2):
        if names is not None:
            raise ModelError(
                f"{source.source} answers with {count} classes, but {len(names)} are named; correct its adapter's "
                "'classes'"
            )
        raise ModelError(
            f"{source.source} answers with {count} classes and doesn't name them, and the data set has "
            f"{len(classes)}; name its classes in order in its adapter ('classes')"
        )
    if isinstance(module, AdaptedNetwork) and not isinstance(opened.network, SegmentationModel):
        tell_unscaled(adapter, source.source)
    if names is None:
        names = classes.names
        _LOGGER.warning("%s doesn't name its classes; they are taken for %s", source.source, ", ".join(names))
    return TorchTeacher(
        module,
        classes,
        map_classes(classes.names, names, source.classes, name=source.source),
        output="logits" if adapter.output == "labels" else adapter.output,
        scaling=adapter.normalization(bands) if adapter.model_fields_set & {"mean", "std"} else None,
        name=source.source,
    )


def _is_function(source: TeacherSource) -> bool:
    return is_function(source.source) and not Path(source.source).exists()


def _opened(source: TeacherSource, named: tuple[str, ...] | None, classes: ClassMap, bands: int) -> _Opened:
    family, _, name = source.source.partition(":")
    if family in _NETWORKS:
        return _network_with_weights(source, named, classes, bands)
    if family in _PROGRAMS:
        return _Opened(open_program(family, Path(name)), None, content_key(Path(name)))
    if family == "hf":
        model = load_huggingface(name)
        has_names = getattr(model.network, "class_names", None) is not None
        return _Opened(model, model.description.classes.names if has_names else None)
    if _is_function(source):
        return _function_network(source, bands)
    if not Path(source.source).is_dir():
        raise FileError(f"no teacher at {source.source}; give {KINDS}")
    model = load_model(source.source, trust=source.trust)
    return _Opened(model, model.description.classes.names)


def _network_with_weights(
    source: TeacherSource, named: tuple[str, ...] | None, classes: ClassMap, bands: int
) -> _Opened:
    if source.weights is None:
        hint = ", or the name of weights that torchvision publishes" if source.source.startswith("torchvision:") else ""
        raise ConfigError(
            f"the teacher {source.source} would have random weights; give the file of trained ones as 'weights'{hint}"
        )

    def name_classes(count: int) -> ClassMap:
        names = named or published_classes(source.source, count)
        if names is None or len(names) != count:
            if count == len(classes):
                return classes
            names = tuple(str(number) for number in range(count))
        return ClassMap.build([(name, None, None) for name in names])

    model = load_network(
        source.source, source.weights, name_classes, bands=bands, options=source.options, likely_classes=len(classes)
    )
    return _Opened(model, published_classes(source.source, len(model.description.classes)))


def _function_network(source: TeacherSource, bands: int) -> _Opened:
    network = call_network(source.source, source.options, subject=f"teacher '{source.source}'")
    if source.weights is not None:
        load_whole(unwrapped(network), source.weights, name=f"the network of '{source.source}'", bands=bands)
    origin = json.dumps([source.source, source.options], sort_keys=True, default=str)
    names = network.description.classes.names if isinstance(network, SegmentationModel) else None
    return _Opened(network, names, origin)


def _adapted(opened: _Opened, adapter: Adapter, name: str, *, bands: int, classes: int) -> nn.Module:
    """Give a network the scaling that its adapter says, and wrap it where that isn't enough."""
    network, stated = opened.network, adapter.model_fields_set
    ours = isinstance(network, SegmentationModel)
    if isinstance(network, SegmentationModel):
        if network.description.bands != bands:
            raise ModelError(f"the model in {name} takes {network.description.bands} bands, but images have {bands}")
        if stated & {"mean", "std"}:
            scaling = adapter.normalization(bands)
            network = SegmentationModel(network.network, replace(network.description, normalization=scaling))
        if not stated & _WRAPPING and adapter.output != "labels":
            return network.eval()
    return AdaptedNetwork(
        network, adapter, bands=bands, classes=classes, scaled=not ours, name=name, origin=opened.origin
    ).eval()


def _count(module: nn.Module, bands: int, name: str) -> int:
    """Return how many scores a pixel gets; a foreign network is run once to see it."""
    if isinstance(module, SegmentationModel):
        return module.num_classes
    with torch.no_grad():
        count = int(module(torch.zeros(1, bands, _TRIAL, _TRIAL)).shape[1])
        if isinstance(module, AdaptedNetwork) and module.resizing.size is None:
            try:
                module(torch.zeros(1, bands, *_OTHER_TRIAL))
            except ModelError as error:
                height, width = _OTHER_TRIAL
                raise ModelError(
                    f"{name} takes images of {_TRIAL} x {_TRIAL} pixels and none of {height} x {width}; say "
                    f"'size: {_TRIAL}' in its adapter"
                ) from error
    return count
