"""Teachers in a lower precision, run by OpenVINO on the CPU."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.data import Dataset, calibration_tiles
from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.models import SegmentationModel
from segshrink.prediction.formats import AdaptedFile
from segshrink.prediction.isolated import check_isolated
from segshrink.prediction.runtimes.onnx import OnnxNetwork
from segshrink.prediction.runtimes.openvino import OpenVinoNetwork, openvino_reason, require_openvino
from segshrink.teachers.black_box import BlackBox
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_teacher import TorchTeacher

_LOGGER = logging.getLogger(__name__)

Precision = Literal["bf16", "int8"]

# Tiles that a network's ranges are observed on, batches of them at most (a net of one size sees a tile in several), and
# shapes of batches on which an int8 graph is tried.
_TILES, _OBSERVED, _SHAPES = 32, 64, 3
# Tiles that answers are compared on. A teacher that changes its mind about more pixels than this isn't the same one.
_COMPARED, _LEAST_AGREEMENT = 8, 0.95
# What an adapter may say about a model of ours; the rest is about networks that aren't.
_OF_IMAGES = {"size", "fit", "place", "fill", "order", "mean", "std", "classes", "output"}


class LowPrecisionTeacher(Teacher):
    """Answers as another teacher does, from its network in lower precision. It runs on the CPU.

    The network is converted when it is first asked, and the other teacher forgotten then. Where it can't be run so on
    this machine, or keeps the class of fewer than 95 % of the tiles' pixels, the other one goes on answering; a warning
    says which it is.

    Args:
        teacher: A ``TorchTeacher`` or a ``BlackBox``.
        precision: "bf16"; or "int8": 8-bit integers by post-training quantization, the rest in fp32.
        tiles: Raw pixels (bands, H, W) of images that it will see, on which "int8" observes ranges.

    Raises:
        ModelError: Its network isn't one that can be exported.
        MissingExtraError: OpenVINO, or NNCF for "int8", isn't installed.
    """

    def __init__(self, teacher: Teacher, precision: Precision, tiles: Sequence[NDArray[Any]] = ()) -> None:
        super().__init__(teacher.classes, known=teacher.known, name=teacher.name)
        _check_convertible(teacher)
        require_openvino()
        if precision == "int8":
            from segshrink.export.int8_graph import require_nncf

            require_nncf()
        self.precision = precision
        content = hashlib.sha256()
        for tile in tiles if precision == "int8" else ():
            content.update(f"{tile.dtype} {tile.shape}".encode())
            content.update(np.ascontiguousarray(tile).data)
        # The name by which identities, and so cached answers, have always called it.
        settings = [teacher.identity, "OpenVinoTeacher", precision, content.hexdigest()]
        self._identity = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        self._parameters = teacher.parameters
        self._teacher = teacher
        self._tiles: tuple[NDArray[Any], ...] | None = tuple(tiles)

    @property
    def identity(self) -> str:
        """SHA-256 of the other teacher's identity, the precision, and the tiles."""
        return self._identity

    @property
    def parameters(self) -> int | None:
        """How many weights it has; None where that isn't known."""
        return self._parameters

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        return self._teacher.overlooked

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        return self._answering().logits(images)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene, as the other teacher looks at it.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        return self._answering().scene_logits(image, name)

    def _answering(self) -> Teacher:
        if self._tiles is None:
            return self._teacher
        try:
            # A training that asks may have autocast on, whose casts would be exported, too.
            with torch.autocast("cpu", enabled=False), scratch_folder() as scratch:
                converted = self._converted(self._tiles, scratch)
                agreement = _agreement(converted, self._teacher, self._tiles[:_COMPARED])
        except ModelError as error:
            _LOGGER.warning("%s runs as it is, not in %s: %s", self.name, self.precision, error)
        else:
            same = f"{100 * agreement:.1f} % of pixels keep their class"
            if agreement >= _LEAST_AGREEMENT:
                _LOGGER.warning("%s runs in %s through OpenVINO; %s", self.name, self.precision, same)
                self._teacher = converted
            else:
                _LOGGER.warning("%s runs as it is, since in %s only %s", self.name, self.precision, same)
        self._tiles = None
        return self._teacher

    def _converted(self, tiles: Sequence[NDArray[Any]], scratch: Path) -> BlackBox:
        """Return the same teacher with its network in OpenVINO.

        Raises:
            ModelError: OpenVINO can't read the network, NNCF can't quantize it, its int8 graph can't be run on this
                machine, which a process of its own finds out, or the processor doesn't compute in bf16.
        """
        teacher = self._teacher
        box = teacher if isinstance(teacher, BlackBox) else _exported(cast("TorchTeacher", teacher), scratch)
        path = box.file.network.path
        try:
            model = require_openvino().convert_model(path)
        except Exception as error:  # the front ends' exceptions have no common public base
            raise ModelError(f"OpenVINO can't read {path} ({openvino_reason(error)})") from error
        dtypes = [np.dtype(port.get_element_type().to_dtype()) for port in model.inputs]
        network = box.file.network
        if dtypes != [network.images.dtype] or len(model.outputs) != len(network.outputs):
            raise ModelError(f"OpenVINO reads {path} as a network with other inputs or outputs")
        if self.precision == "int8":
            from segshrink.export.int8_graph import int8_graph

            batches = _observed(box, tiles)
            model = int8_graph(model, batches)
            file = scratch / f"{path.stem}-int8.xml"
            require_openvino().save_model(model, file, compress_to_fp16=False)
            shapes = list(dict.fromkeys(batch.shape for batch in batches))[:_SHAPES]
            check_isolated(file, runtime="openvino", threads=torch.get_num_threads(), shapes=shapes)
        how = "auto" if self.precision == "int8" else self.precision
        return box.run_by(OpenVinoNetwork(path, model=model, precision=how, threads=torch.get_num_threads()))


def in_precision(teacher: Teacher, precision: Literal["auto"] | Precision, dataset: Dataset) -> Teacher:
    """Return a teacher that computes in a lower precision wherever its parts can; on a GPU it stays as it is.

    Args:
        teacher: As it was opened.
        precision: "auto": it stays as it is; "bf16"; "int8".
        dataset: Has the images on which ranges are observed and answers compared.

    Raises:
        MissingExtraError: OpenVINO, or NNCF for "int8", isn't installed.
    """
    if precision == "auto" or torch.cuda.is_available():
        return teacher
    return _lowered(teacher, precision, calibration_tiles(dataset, count=_TILES))


def _lowered(teacher: Teacher, precision: Precision, tiles: Sequence[NDArray[Any]]) -> Teacher:
    if teacher.parts:
        return teacher.of_parts([_lowered(part, precision, tiles) for part in teacher.parts])
    if teacher.whole_scenes:
        return teacher
    try:
        return LowPrecisionTeacher(teacher, precision, tiles)
    except ModelError as error:
        _LOGGER.warning("%s; until then it runs as it is", error)
        return teacher


def _agreement(teacher: Teacher, reference: Teacher, tiles: Sequence[NDArray[Any]]) -> float:
    """Return the share of pixels, in [0, 1], to which two teachers give the same class; 1 without any."""
    equal = total = 0
    for tile in tiles:
        likeliest = [each.logits(torch.from_numpy(tile)[None]).max(dim=1).indices for each in (teacher, reference)]
        equal += int((likeliest[0] == likeliest[1]).sum())
        total += likeliest[0].numel()
    return equal / total if total else 1.0


def _check_convertible(teacher: Teacher) -> None:
    """Refuse a teacher whose network can't be given to OpenVINO.

    Raises:
        ModelError: It is neither of a file nor a model that segshrink builds.
    """
    if isinstance(teacher, BlackBox):
        return
    if not isinstance(teacher, TorchTeacher):
        raise ModelError(f"{teacher.name} has no network")
    network, adapter = teacher.network_and_adapter
    foreign = adapter.model_fields_set - _OF_IMAGES
    if not isinstance(network, SegmentationModel) or foreign or adapter.output == "labels":
        raise ModelError(
            f"{teacher.name} is a network that segshrink can't export; export it to ONNX and give the file as onnx:FILE"
        )


def _exported(teacher: TorchTeacher, folder: Path) -> BlackBox:
    """Return a teacher of PyTorch as one of an ONNX file."""
    from segshrink.export.onnx import to_onnx

    network, adapter = teacher.network_and_adapter
    model = cast("SegmentationModel", network).cpu().eval()
    path = folder / "teacher.onnx"
    path.write_bytes(to_onnx(model, outputs=("logits",), float_pixels=True).SerializeToString())
    file = OnnxNetwork(path, threads=torch.get_num_threads())
    # The model scales pixels itself.
    adapter = adapter.model_copy(update={"mean": 0.0, "std": 1.0, "classes": None, "output": "auto"})
    count, bands = model.num_classes, model.description.bands
    adapted = AdaptedFile.of(file, adapter, count, bands=bands, described=True, named=f"it has {count} classes")
    if teacher.returns_probabilities is not None:
        adapted.gives.kind = "probabilities" if teacher.returns_probabilities else "logits"
    mapping = teacher.mapping or ClassMapping(tuple((index,) for index in range(count)))
    box = BlackBox(adapted, adapter, teacher.classes, mapping, key="", name=teacher.name)
    box.resize = teacher.resize
    return box


def _observed(box: BlackBox, tiles: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the batches that a network is given when its teacher is asked about tiles (bands, H, W)."""
    batches: list[NDArray[Any]] = []
    box.file.batches = batches
    for tile in tiles:
        if len(batches) < _OBSERVED:
            box.logits(torch.from_numpy(tile)[None])
    box.file.batches = None
    return batches
