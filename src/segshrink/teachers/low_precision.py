"""A teacher of PyTorch, ONNX or TFLite in a lower precision, run by OpenVINO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.config import Adapter
from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.models import SegmentationModel
from segshrink.teachers.adapter import read_intake
from segshrink.teachers.black_box import BlackBox
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.openvino_runner import OpenVinoRunner
from segshrink.teachers.output_format import read_answers
from segshrink.teachers.runtimes import OnnxRunner, Runner
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_adapter import AdaptedNetwork
from segshrink.teachers.torch_teacher import TorchTeacher

Lowered = Literal["bf16", "int8"]

# Batches at most that ranges of activations are observed on: a net of one size sees a tile in several.
_OBSERVED = 64
# What an adapter may say about a model of ours; the rest is about networks that aren't.
_OF_IMAGES = {"size", "fit", "place", "fill", "order", "mean", "std", "classes", "output"}


class OpenVinoTeacher(Teacher):
    """Answers as another teacher does, from its network in lower precision. It runs on the CPU.

    The network is converted when it is first asked, and the other teacher forgotten then.

    Args:
        teacher: A ``TorchTeacher`` or a ``BlackBox``.
        precision: "bf16"; or "int8": 8-bit integers by post-training quantization, the rest in fp32.
        tiles: Raw pixels (bands, H, W) of images that it will see, on which "int8" observes ranges.

    Raises:
        ModelError: Its network isn't one that can be exported, or OpenVINO can't run it so.
    """

    def __init__(self, teacher: Teacher, precision: Lowered, tiles: Sequence[NDArray[Any]] = ()) -> None:
        super().__init__(teacher.classes, known=teacher.known, name=teacher.name)
        check_convertible(teacher)
        self.precision = precision
        seen = hashlib.sha256()
        for tile in tiles if precision == "int8" else ():
            seen.update(f"{tile.dtype} {tile.shape}".encode())
            seen.update(np.ascontiguousarray(tile).data)
        settings = [teacher.identity, type(self).__name__, precision, seen.hexdigest()]
        self._identity = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self._parameters = teacher.parameters
        self._source: Teacher | None = teacher
        self._tiles = tuple(tiles)
        self._box: BlackBox | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of the other teacher's identity, the precision, and the tiles."""
        return self._identity

    @property
    def parameters(self) -> int | None:
        """How many weights it has; None where that isn't known."""
        return self._parameters

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        return self._converted().logits(images)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene, as the other teacher looks at it.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        return self._converted().scene_logits(image, name)

    def _converted(self) -> BlackBox:
        if self._box is None:
            assert self._source is not None  # noqa: S101  # it goes when the box comes
            # A training that asks may have autocast on, whose casts would be exported, too.
            unmixed = torch.autocast("cpu", enabled=False)
            with unmixed, scratch_folder() as scratch:
                self._box = self._convert(self._source, scratch)
            self._source, self._tiles = None, ()
        return self._box

    def _convert(self, teacher: Teacher, scratch: Path) -> BlackBox:
        box = teacher if isinstance(teacher, BlackBox) else _exported(cast("TorchTeacher", teacher), scratch)
        return box.run_by(
            OpenVinoRunner(
                box.runner,
                key=self._identity,
                precision=self.precision,
                inputs=_observed(box, self._tiles) if self.precision == "int8" else (),
                threads=torch.get_num_threads(),
            )
        )


def check_convertible(teacher: Teacher) -> None:
    """Refuse a teacher whose network can't be given to OpenVINO.

    Raises:
        ModelError: It is neither of a file nor a model that segshrink builds.
    """
    if isinstance(teacher, BlackBox):
        return
    if not isinstance(teacher, TorchTeacher):
        raise ModelError(f"{teacher.name} has no network")
    network, adapter = _network(teacher)
    said = adapter.model_fields_set - _OF_IMAGES
    if not isinstance(network, SegmentationModel) or said or adapter.output == "labels":
        raise ModelError(
            f"{teacher.name} is a network that segshrink can't export; export it to ONNX and give the file as onnx:FILE"
        )


def _network(teacher: TorchTeacher) -> tuple[nn.Module, Adapter]:
    """Return a teacher's network and what is said about it."""
    module = teacher.module
    return (module.network, module.adapter) if isinstance(module, AdaptedNetwork) else (module, Adapter())


def _exported(teacher: TorchTeacher, folder: Path) -> BlackBox:
    """Return a teacher of PyTorch as one of an ONNX file."""
    from segshrink.export.onnx import to_onnx

    network, adapter = _network(teacher)
    model = cast("SegmentationModel", network).cpu().eval()
    path = folder / "teacher.onnx"
    path.write_bytes(to_onnx(model, outputs=("logits",), float_pixels=True).SerializeToString())
    runner = OnnxRunner(path, threads=torch.get_num_threads())
    # The model scales pixels itself.
    adapter = adapter.model_copy(update={"mean": 0.0, "std": 1.0, "classes": None, "output": "auto"})
    intake = read_intake(runner, adapter, bands=model.description.bands)
    count = model.num_classes
    reader = read_answers(runner, adapter, count, named=f"it has {count} classes", layout="NCHW")
    if teacher.returns_probabilities is not None:
        reader.kind = "probabilities" if teacher.returns_probabilities else "logits"
    mapping = teacher.mapping or ClassMapping(tuple((index,) for index in range(count)))
    return BlackBox(runner, adapter, intake, reader, teacher.classes, mapping, name=teacher.name)


def _observed(box: BlackBox, tiles: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the batches that a network is given when its teacher is asked about tiles (bands, H, W)."""
    listener = _Listener(box.runner)
    listening = box.run_by(listener)
    for tile in tiles:
        if len(listener.heard) >= _OBSERVED:
            break
        listening.logits(torch.from_numpy(tile)[None])
    return listener.heard


class _Listener(Runner):
    """Runs another runner's network and keeps the batches that it is given."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.path, runner.key, (runner.input, runner.outputs), runner.description)
        self.layout = runner.layout
        self.heard: list[NDArray[Any]] = []
        self._runner = runner

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        self.heard.append(images)
        return self._runner._run(images, output)
