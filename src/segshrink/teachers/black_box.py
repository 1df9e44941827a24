"""Teachers in files that aren't PyTorch: ``onnx:FILE`` and ``tflite:FILE``."""

from __future__ import annotations

import copy
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import FileError, MissingExtraError, ModelError, first_line
from segshrink.files import expanded
from segshrink.prediction.exported import read_description
from segshrink.prediction.runtimes.litert import LiteRtNetwork
from segshrink.prediction.runtimes.network import Network, read_file
from segshrink.prediction.runtimes.onnx import OnnxNetwork
from segshrink.teachers.adapter import InputFormat, OutputFormat, adapter_of, read_input, read_output
from segshrink.teachers.fixed_image import answer_to_fixed_image
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.pixel_units import check_units
from segshrink.teachers.resizing import Resizing
from segshrink.teachers.teacher import Teacher

# What identities, by which cached answers are found, have always called the runtimes.
_RUNTIMES = {"onnxruntime": "OnnxRunner", "litert": "LiteRtRunner"}


class BlackBox(Teacher):
    """A network of which only the answers can be seen. It runs on the CPU.

    A network of one size sees a whole image where the adapter says letterbox or stretch, and tiles of it otherwise;
    its logits are brought to the image's size bilinearly before classes are mapped. One that takes any size sees
    crops as they are, and scenes by blended tiles.

    Args:
        network: The file.
        adapter: What is said about it; kept for ``identity``.
        formats: How it takes pixels, and how its answers are read.
        size: The only height and width that it takes; None: any.
        classes: The student's classes.
        mapping: Which of its classes stand for which of the student's.
        key: SHA-256 of the file's content.
        name: How messages and reports call it.

    Attributes:
        batches: Gets what the network is given, while it is a list.
    """

    batches: list[NDArray[Any]] | None = None

    def __init__(
        self,
        network: Network,
        adapter: Adapter,
        formats: tuple[InputFormat, OutputFormat],
        size: tuple[int, int] | None,
        classes: ClassMap,
        mapping: ClassMapping,
        *,
        key: str,
        name: str = "teacher",
    ) -> None:
        self._input, self._output = formats
        super().__init__(classes, mapping=mapping, scaling=self._input.scaling, name=name)
        self.network = network
        self.mapping: ClassMapping = mapping
        self._adapter, self._key = adapter, key
        self._resizing = Resizing.of(adapter, size)
        self.sees_whole_scenes = size is not None
        # Channels that stand for nothing are resized and blended as one.
        self._kept = sorted({channel for group in mapping.channels for channel in group})
        self._final = ClassMapping(
            tuple(tuple(self._kept.index(channel) for channel in group) for group in mapping.channels)
        )

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether its answers were found to be probabilities; None: it has answered nothing yet."""
        return self._output.returns_probabilities

    @property
    def identity(self) -> str:
        """SHA-256 of the file's bytes, the adapter's settings, the class mapping, and the answer to a fixed image."""
        # Where the names are written changes nothing.
        settings = self._adapter.model_dump(mode="json", exclude={"classes", "module"})
        sizes = {} if self._resizing.size is None else {"sizes": [self._resizing.size]}
        answer = answer_to_fixed_image(self._answer, self._input.scaling.bands, **sizes)
        runtime, classes = _RUNTIMES[self.network.runtime], self._output.classes
        parts = [runtime, self._key, settings, classes, self.mapping.channels, answer]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def run_by(self, network: Network) -> BlackBox:
        """Return the same teacher with another runtime's opening of its network."""
        other = copy.copy(self)
        other.network = network
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
        return self._final.apply(self._resizing.logits(pixels, self._kept_logits)).to(images.device)

    def _kept_logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (n, K', h, w) of the channels that stand for a class, and last of all others together."""
        logits = self._output.logits(self._answer(pixels))
        if len(self._kept) == logits.shape[1]:
            return logits
        self._overlooked |= self.mapping.overlooked(logits)
        others = [channel for channel in range(logits.shape[1]) if channel not in self._kept]
        return torch.cat([logits[:, self._kept], logits[:, others].logsumexp(dim=1, keepdim=True)], dim=1)

    def _answer(self, pixels: Tensor) -> Tensor:
        """Return the network's output for raw pixels; a fixed batch size is kept by repetition."""
        images = self._input.tensor(pixels).numpy()
        step = self.network.images.shape[0] or len(images)
        answers = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            missing = step - len(part)
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            answers.append(self._run(np.ascontiguousarray(batch))[: len(part)])
        return torch.from_numpy(np.concatenate(answers))

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        if self.batches is not None:
            self.batches.append(batch)
        try:
            answer = self.network.run(batch, self._output.number)
        except ModelError as error:
            raise ModelError(f"{error}; if it takes one size only, say 'size' in its adapter") from error
        if answer.ndim == 0 or len(answer) != len(batch):
            raise ModelError(
                f"{self.network.path} answers {answer.shape} to {len(batch)} image(s); its answer's first axis must "
                "count the images"
            )
        return answer


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
    read = partial(_self_contained if kind == "onnx" else read_file, path)
    network: Network
    if kind == "onnx":
        # Threads that wait for the next image must not take the time of the training beside them.
        network = OnnxNetwork(path, threads=threads, spinning=False, read=read)
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
        named = f"the data set has {len(names)} classes and no names of its own are given"
    input_format, size = read_input(network, adapter, bands=bands, described=description is not None)
    output_format = read_output(network, adapter, len(names), named=named, layout=input_format.layout)
    mapping = map_classes(classes.names, names, source.classes, name=source.source)
    key = hashlib.sha256(read()).hexdigest()
    formats = (input_format, output_format)
    box = BlackBox(network, adapter, formats, size, classes, mapping, key=key, name=source.source)
    box.resize = None if description is None else description.resize
    return box


def _self_contained(path: Path) -> bytes:
    """Read an ONNX file with the weights that it keeps in other files of its folder."""
    content = read_file(path)
    try:
        import onnx
        from onnx.external_data_helper import load_external_data_for_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("an onnx: teacher", "train") from error
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # what protobuf raises isn't public
        raise ModelError(f"{path} is not an ONNX file ({first_line(error)}); export the model again") from error
    if b"location" not in content:  # the key under which a tensor names its file
        return content
    try:
        # It refuses files outside of the folder.
        load_external_data_for_model(model, str(path.parent))
        whole: bytes = model.SerializeToString()
    except Exception as error:  # what onnx raises depends on its version
        raise FileError(
            f"{path} keeps weights in other files, which can't be read ({first_line(error)}); put them beside it, or "
            "save the model as one file"
        ) from error
    return whole
