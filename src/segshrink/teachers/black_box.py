"""Teachers in files that aren't PyTorch: ``onnx:FILE`` and ``tflite:FILE``."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource, adapter_of
from segshrink.errors import ModelError
from segshrink.files import expanded
from segshrink.prediction.exported import read_description
from segshrink.prediction.formats import AdaptedFile
from segshrink.prediction.pixel_units import check_units, tell_unscaled
from segshrink.prediction.runtimes.litert import LiteRtNetwork
from segshrink.prediction.runtimes.network import Network, read_file
from segshrink.prediction.runtimes.onnx import OnnxNetwork, read_whole
from segshrink.teachers.fixed_image import answer_to_fixed_image
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.resizing import TeacherResizing
from segshrink.teachers.teacher import Teacher

_LOGGER = logging.getLogger(__name__)
# What identities, by which cached answers are found, have always called the runtimes.
_RUNTIMES = {"onnxruntime": "OnnxRunner", "litert": "LiteRtRunner"}


class BlackBox(Teacher):
    """A network of which only the answers can be seen. It runs on the CPU.

    A network of one size sees a whole image where the adapter says letterbox or stretch, and tiles of it otherwise;
    its logits are brought to the image's size bilinearly before classes are mapped. One that takes any size sees
    crops as they are, and scenes by blended tiles.

    Args:
        file: The file, with how it takes pixels and how its answers are read.
        adapter: What is said about it; kept for ``identity``.
        classes: The student's classes.
        mapping: Which of its classes stand for which of the student's.
        key: SHA-256 of the file's content.
        name: How messages and reports call it.
    """

    def __init__(
        self,
        file: AdaptedFile,
        adapter: Adapter,
        classes: ClassMap,
        mapping: ClassMapping,
        *,
        key: str,
        name: str = "teacher",
    ) -> None:
        super().__init__(classes, mapping=mapping, scaling=file.takes.scaling, name=name)
        self.file = replace(file, resizing=TeacherResizing(**vars(file.resizing)))
        self.mapping: ClassMapping = mapping
        self._adapter, self._key = adapter, key
        self.sees_whole_scenes = file.resizing.size is not None
        # Channels that stand for nothing are resized and blended as one.
        self._kept = sorted({channel for group in mapping.channels for channel in group})
        self._final = ClassMapping(
            tuple(tuple(self._kept.index(channel) for channel in group) for group in mapping.channels)
        )

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether its answers were found to be probabilities; None: it has answered nothing yet."""
        return self.file.gives.returns_probabilities

    @property
    def identity(self) -> str:
        """SHA-256 of the file's bytes, the adapter's settings, the class mapping, and the answer to a fixed image."""
        # Where the names are written changes nothing.
        settings = self._adapter.model_dump(mode="json", exclude={"classes", "module"})
        file, size = self.file, self.file.resizing.size
        sizes = {} if size is None else {"sizes": [size]}
        answer = answer_to_fixed_image(
            lambda pixels: torch.from_numpy(file.answer(pixels.numpy())), file.takes.scaling.bands, **sizes
        )
        runtime, classes = _RUNTIMES[file.network.runtime], file.gives.classes
        parts = [runtime, self._key, settings, classes, self.mapping.identity, answer]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def run_by(self, network: Network) -> BlackBox:
        """Return the same teacher with another runtime's opening of its network."""
        other = copy.copy(self)
        other.file = replace(self.file, network=network)
        return other

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.

        Raises:
            ConfigError: Its adapter scales pixels from 0 to 1, and these are larger.
            ModelError: The network fails, or answers what its file and adapter don't say.
        """
        pixels = images.detach().cpu()
        if pixels.dtype == torch.uint8:
            check_units(self._scaling, pixels, self.name)
        else:
            pixels = pixels.float()
        logits = torch.from_numpy(self.file.resizing.logits(pixels.numpy(), self._kept_logits))
        return self._final.apply(logits).to(images.device)

    def _kept_logits(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits (n, K', h, w) of the channels that stand for a class, and last of all others together."""
        logits = self.file.logits(pixels)
        if len(self._kept) == logits.shape[1]:
            return logits
        self._overlooked |= self.mapping.overlooked(torch.from_numpy(logits))
        others = [channel for channel in range(logits.shape[1]) if channel not in self._kept]
        rest = np.logaddexp.reduce(logits[:, others], axis=1, keepdims=True)
        return np.concatenate([logits[:, self._kept], rest], axis=1)


def open_black_box(source: TeacherSource, names: tuple[str, ...] | None, classes: ClassMap, *, bands: int) -> BlackBox:
    """Open ``onnx:FILE`` or ``tflite:FILE`` as a teacher; its session takes torch's number of threads.

    What the adapter leaves out is read from the file: input size, order of axes and type of numbers, and, where
    segshrink wrote the file, the class names. A file without class names must have the student's classes, in the
    student's order.

    Args:
        source: Where it is, its adapter, and which of its classes stand for which of the student's.
        names: Its classes, as the adapter names them; None: the adapter doesn't.
        classes: The student's classes.
        bands: Bands of the images.

    Raises:
        FileError: A file is missing or can't be read.
        ConfigError: The adapter contradicts itself, the file or the images.
        ModelError: The file is damaged, isn't a network from images to maps of classes, or has no class or other bands
            than the student.
        MissingExtraError: The library that runs the file isn't installed.
    """
    kind, _, file = source.source.partition(":")
    path, adapter, threads = expanded(file), adapter_of(source), torch.get_num_threads()
    read = partial(read_whole if kind == "onnx" else read_file, path)
    network: Network
    if kind == "onnx":
        # Threads that wait for the next image must not take the time of the training beside them.
        network = OnnxNetwork(path, threads=threads, spinning=False)
    else:
        network = LiteRtNetwork(path, threads=threads)
    description = None if network.metadata is None else read_description(network.metadata, path)
    if description is not None and description.bands != bands:
        raise ModelError(f"{path} takes {description.bands} bands, but the images have {bands}")
    named = f"{len(names or ())} class names are given"
    if names is None and description is not None:
        names = description.classes.names
        named = f"its metadata names {len(names)} classes"
    if names is None:
        names = classes.names
        _LOGGER.warning("%s doesn't name its classes; they are taken for %s", source.source, ", ".join(names))
        named = f"the data set has {len(names)} classes and no names of its own are given"
    described = description is not None
    adapted = AdaptedFile.of(network, adapter, len(names), bands=bands, described=described, named=named)
    if not described and adapted.takes.dtype.kind == "f":
        tell_unscaled(adapter, source.source)
    mapping = map_classes(classes.names, names, source.classes, name=source.source)
    key = hashlib.sha256(read()).hexdigest()
    box = BlackBox(adapted, adapter, classes, mapping, key=key, name=source.source)
    box.resize = None if description is None else description.resize
    return box
