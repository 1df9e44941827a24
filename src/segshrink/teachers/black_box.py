"""Teachers in files that aren't PyTorch: ``onnx:FILE`` and ``tflite:FILE``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ConfigError, ModelError
from segshrink.losses.shapes import resized
from segshrink.model_description import Normalization
from segshrink.teachers.adapter import Intake, read_intake
from segshrink.teachers.adapter_files import adapter_of, class_names
from segshrink.teachers.fixed_image import answer_to_fixed_image
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.output_format import AnswerReader, read_answers
from segshrink.teachers.pixel_units import check_units
from segshrink.teachers.resizing import Fitting
from segshrink.teachers.runtimes import LiteRtRunner, OnnxRunner, Runner
from segshrink.teachers.teacher import Teacher

_RUNNERS = {"onnx": OnnxRunner, "tflite": LiteRtRunner}


class BlackBox(Teacher):
    """A network of which only the answers can be seen. It runs on the CPU.

    A network of one size sees a whole image where the adapter says letterbox or stretch, and tiles of it otherwise;
    its logits are brought to the image's size bilinearly before classes are mapped. One that takes any size sees
    crops as they are, and scenes by the tiles that deployment uses.

    Args:
        runner: The network.
        adapter: What is said about it; kept for ``identity``.
        intake: How it takes pixels.
        reader: How its answers are read.
        classes: The student's classes.
        mapping: Which of its classes stand for which of the student's.
        name: How messages and reports call it.
    """

    def __init__(
        self,
        runner: Runner,
        adapter: Adapter,
        intake: Intake,
        reader: AnswerReader,
        classes: ClassMap,
        mapping: ClassMapping,
        *,
        name: str = "teacher",
    ) -> None:
        super().__init__(classes, known=mapping.known, name=name)
        self.runner = runner
        self.adapter = adapter
        self.mapping = mapping
        self._intake = intake
        self._reader = reader
        self._fitting = intake.size and Fitting(intake.size, adapter.fit, adapter.place, adapter.fill)
        # Channels that stand for nothing are resized and blended as one.
        self._kept = sorted({channel for group in mapping.channels for channel in group})
        self._final = ClassMapping(
            tuple(tuple(self._kept.index(channel) for channel in group) for group in mapping.channels)
        )
        self._scaling = Normalization(intake.mean, intake.std)
        self._overlooked: set[int] = set()

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether its answers were found to be probabilities; None: it has answered nothing yet."""
        return None if self._reader.kind == "auto" else self._reader.kind == "probabilities"

    @property
    def identity(self) -> str:
        """SHA-256 of the file's bytes, the adapter's settings, the class mapping, and the answer to a fixed image."""
        # Where the names are written changes nothing.
        settings = self.adapter.model_dump(mode="json", exclude={"classes"})
        parts = [type(self.runner).__name__, self.runner.key, settings, self._reader.classes, self.mapping.channels]
        parts.append(self._answer())
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        return self.mapping.named(self._overlooked)

    def run_by(self, runner: Runner) -> BlackBox:
        """Return the same teacher with another runner of its network."""
        return BlackBox(runner, self.adapter, self._intake, self._reader, self.classes, self.mapping, name=self.name)

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
        if self._fitting is None:
            answers = resized(self._network(pixels), (pixels.shape[2], pixels.shape[3]))
        else:
            answers = self._fitting.answers(pixels, self._network)
        return self._final.apply(answers).to(images.device)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        check_units(self._scaling, image, self.name)
        if self._fitting is None:
            return super().scene_logits(image, name)
        pixels = np.require(image, np.uint8 if image.dtype == np.uint8 else np.float32, ["C", "W"])
        whole: NDArray[np.float32] = self.logits(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
        return whole

    def _network(self, pixels: Tensor) -> Tensor:
        """Return the logits (n, K', h, w) of the channels that stand for a class, and last of all others together."""
        logits = self._reader.logits(self._raw(pixels))
        if len(self._kept) == logits.shape[1]:
            return logits
        self._overlooked |= self.mapping.overlooked(logits)
        others = [channel for channel in range(logits.shape[1]) if channel not in self._kept]
        return torch.cat([logits[:, self._kept], logits[:, others].logsumexp(dim=1, keepdim=True)], dim=1)

    def _raw(self, pixels: Tensor) -> NDArray[Any]:
        return self.runner.run(self._intake.array(pixels), self._reader.number)

    def _answer(self) -> list[float] | None:
        """Measure the answer to the fixed image."""
        sizes = {} if self._intake.size is None else {"sizes": [self._intake.size]}
        bands = len(self._intake.mean)
        return answer_to_fixed_image(lambda image: torch.from_numpy(self._raw(image)), bands, **sizes)


def open_black_box(source: TeacherSource, classes: ClassMap, *, bands: int) -> Teacher:
    """Open ``onnx:FILE`` or ``tflite:FILE`` as a teacher; its session takes torch's number of threads.

    What the adapter leaves out is read from the file: input size, order of axes and type of numbers, and, from ONNX
    files that segshrink wrote, the class names. A file without class names must have the student's classes, in the
    student's order.

    Args:
        source: Where it is, its adapter, and which of its classes stand for which of the student's.
        classes: The student's classes.
        bands: Bands of the images.

    Raises:
        FileError: A file is missing or can't be read.
        ConfigError: The adapter contradicts itself, the file or the images.
        ModelError: The file is damaged, isn't a network from images to maps of classes, or has no class or other bands
            than the student.
        MissingExtraError: The library that runs the file isn't installed.
    """
    kind, _, name = source.source.partition(":")
    if kind not in _RUNNERS or not name:
        raise ConfigError(f"teacher '{source.source}' must be onnx:FILE or tflite:FILE")
    for key in ("weights", "options"):
        if getattr(source, key):
            raise ConfigError(f"the teacher {source.source} holds a whole network and takes no '{key}'; leave it out")
    adapter = adapter_of(source)
    names = class_names(adapter)
    runner = _RUNNERS[kind](Path(name).expanduser(), threads=torch.get_num_threads())
    given = f"{len(names or ())} class names are given"
    if names is None and runner.description is not None:
        names = runner.description.classes.names
        given = f"its metadata names {len(names)} classes"
    if names is None:
        names = classes.names
        given = f"the data set has {len(names)} classes and no names of its own are given"
    intake = read_intake(runner, adapter, bands=bands)
    reader = read_answers(runner, adapter, len(names), named=given, layout=intake.layout)
    try:
        mapping = map_classes(classes.names, names, source.classes)
    except ModelError as error:
        raise ModelError(f"{source.source}: {error}") from error
    return BlackBox(runner, adapter, intake, reader, classes, mapping, name=source.source)
