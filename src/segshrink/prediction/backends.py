"""What runs a model: the interface, and finding the right one for a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.config import adapter_beside
from segshrink.errors import ModelError, UsageError, nearest
from segshrink.machine import default_threads
from segshrink.model_description import ModelDescription
from segshrink.model_file import FOLDER, RUNTIMES, ModelFile
from segshrink.run_folder import RunFolder

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel
    from segshrink.prediction.runtimes.network import Network

    Model: TypeAlias = "str | Path | SegmentationModel | Backend"

PRECISIONS = ("32", "bf16", "auto")


class Backend(Protocol):
    """Runs one model on batches of raw pixels, in whatever library it likes.

    Attributes:
        name: Of the model, for people.
        classes: What the logits mean.
        num_classes: How many logits a pixel gets.
        bands: How many bands an image has.
        runtime: "torch", "torch-compile", "onnxruntime", "openvino" or "litert".
        description: The model's description; None for a module without one.
        own_tile: Side of the tiles that images are cut into unless others are asked for; None: any.
    """

    name: str
    classes: ClassMap
    num_classes: int
    bands: int
    runtime: str
    description: ModelDescription | None
    own_tile: int | None

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands), any H and W, into logits (N, num_classes, H, W)."""
        ...

    def classify(self, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W), the first of equals."""
        ...


def open_backend(
    source: Model | Sequence[Model],
    *,
    runtime: str | None = None,
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
    classes: ClassMap | None = None,
    trust: bool = False,
) -> Backend:
    """Open a model for prediction.

    Args:
        source: A file (``.onnx``, ``.xml`` with its ``.bin``, ``.tflite``), a model or run folder or a Keras file (need
            torch), a ``SegmentationModel``, or a backend, which is returned as it is. What a file that segshrink didn't
            write doesn't say, its class names and how pixels are scaled, is read from ``FILE.yaml`` beside it. Several
            are opened as the mean of their probabilities, as are the members of a bank's folder.
        runtime: "torch" or "torch-compile" for folders and models, "onnxruntime" or "openvino" for
            ``.onnx`` files, "openvino" for ``.xml``, "litert" for ``.tflite``; None takes the first of these.
        precision: ``"32"``, ``"bf16"`` or ``"auto"`` (torch and OpenVINO: bf16 where the processor computes in it).
            ONNX Runtime and LiteRT compute in what the file says.
        threads: Threads to run on; by default all cores, in torch its own setting.
        streams: How many threads will call it at once (ONNX Runtime and OpenVINO can be); each gets its part of
            ``threads``.
        classes: What a file that segshrink didn't write tells apart, where nothing beside it names its classes.
        trust: Let code run that the model names; see ``load_model``.

    Raises:
        FileError: Nothing is at ``source``.
        ModelError: What is at ``source`` is not a model, or the runtime or precision doesn't suit it.
        MissingExtraError: The runtime isn't installed.
    """
    if isinstance(source, str | Path):
        source = RunFolder(source).members or source
    if isinstance(source, Sequence) and not isinstance(source, str):
        from segshrink.prediction.average import AverageBackend

        settings: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads, "streams": streams}
        parts = [open_backend(each, classes=classes, trust=trust, **settings) for each in source]
        return parts[0] if len(parts) == 1 else AverageBackend(parts)
    if _is_backend(source):
        return source
    if precision not in PRECISIONS:
        raise ModelError(f"precision '{precision}' is unknown; use one of {', '.join(PRECISIONS)}")
    if not isinstance(source, str | Path):
        from segshrink.prediction.runtimes.torch import TorchBackend

        compiled = _runtime("the model", RUNTIMES[FOLDER], runtime) == "torch-compile"
        return TorchBackend(cast("SegmentationModel", source), precision=precision, compiled=compiled, threads=threads)
    file = ModelFile.find(source)
    runtime = _runtime(str(file.path), file.runtimes, runtime)
    if runtime in ("torch", "torch-compile"):
        from segshrink.prediction.runtimes.torch import load_torch_backend

        compiled = runtime != "torch"
        return load_torch_backend(file.path, precision=precision, compiled=compiled, threads=threads, trust=trust)
    network = open_network(file, runtime, precision=precision, threads=threads, streams=streams)
    return backend_of(network, file, classes)


def backend_of(network: Network, file: ModelFile, classes: ClassMap | None = None) -> Backend:
    """Return what runs the network that was opened of a file, ours or anybody's; errors as in ``open_backend``."""
    if network.metadata is None:
        from segshrink.prediction.foreign import ForeignBackend

        return ForeignBackend(network, adapter_beside(file), classes)
    if network.runtime == "litert":
        from segshrink.prediction.runtimes.litert import LiteRtBackend

        return LiteRtBackend(network)
    from segshrink.prediction.exported import ExportedModel

    return ExportedModel(network)


def open_network(
    file: ModelFile,
    runtime: str | None = None,
    *,
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
) -> Network:
    """Open the network in a file, from anybody; arguments and errors as in ``open_backend``."""
    runtime = runtime or file.runtimes[0]
    if runtime == "openvino":
        from segshrink.prediction.runtimes.openvino import OpenVinoNetwork

        return OpenVinoNetwork(file.path, precision=precision, threads=threads, streams=streams)
    if precision == "bf16":
        raise ModelError(f"{runtime} doesn't compute in bf16; use precision 32 or auto, or runtime openvino or torch")
    each = threads if streams == 1 else max((threads or default_threads()) // streams, 1)
    if runtime == "litert":
        from segshrink.prediction.runtimes.litert import LiteRtNetwork

        return LiteRtNetwork(file.path, threads=each)
    from segshrink.prediction.runtimes.onnx import OnnxNetwork

    return OnnxNetwork(file.path, threads=each)


def _runtime(model: str, runtimes: tuple[str, ...], runtime: str | None) -> str:
    """Return the runtime that was asked for, or else a model's usual one."""
    if runtime is None or runtime in runtimes:
        return runtime or runtimes[0]
    every = {name for names in RUNTIMES.values() for name in names}
    if runtime not in every:
        raise UsageError(f"unknown runtime '{runtime}'{nearest(runtime, every)}")
    raise ModelError(
        f"{model} can't run in {runtime}, but in {' or '.join(runtimes)}; export it for {runtime}, or leave the "
        "runtime out"
    )


def _is_backend(source: object) -> TypeGuard[Backend]:
    return callable(getattr(source, "run", None)) and hasattr(source, "num_classes")


def check_images(images: npt.NDArray[Any], *, bands: int, name: str) -> None:
    """Refuse a batch that is not (N, H, W, bands) or has no pixels.

    Raises:
        ModelError: The number of axes or bands differs from what the model takes.
    """
    if images.ndim != 4 or images.shape[-1] != bands or 0 in images.shape:
        raise ModelError(f"model '{name}' takes images (N, H, W, {bands}) with pixels in them, got {images.shape}")
