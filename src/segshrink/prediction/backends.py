"""What runs a model: the interface, and finding the right one for a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel


class Backend(Protocol):
    """Runs one model on batches of raw pixels, in whatever library it likes."""

    name: str
    classes: ClassMap
    num_classes: int
    bands: int

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands), any H and W, into logits (N, num_classes, H, W)."""
        ...


def open_backend(
    source: str | Path | SegmentationModel | Backend, *, precision: str = "auto", threads: int | None = None
) -> Backend:
    """Open a model for prediction.

    Args:
        source: An ``.onnx`` file written by segshrink, a model or run folder (needs torch), a ``SegmentationModel``,
            or a backend, which is returned as it is.
        precision: For torch: ``"32"``, ``"bf16"`` or ``"auto"`` (bf16 where the processor computes in it).
        threads: Threads of an ONNX Runtime session; by default all cores. torch uses ``torch.set_num_threads``.

    Raises:
        FileError: Nothing is at ``source``.
        ModelError: What is at ``source`` is not a model.
    """
    if _is_backend(source):
        return source
    if not isinstance(source, str | Path):
        from segshrink.prediction.torch_backend import TorchBackend

        return TorchBackend(cast("SegmentationModel", source), precision=precision)
    path = Path(source)
    if not path.exists():
        raise FileError(f"{path} does not exist; give a model folder, a run folder or an .onnx file")
    if path.is_file():
        if path.suffix.lower() != ".onnx":
            raise ModelError(f"{path} is neither a model folder nor an .onnx file; give the folder with config.json")
        from segshrink.prediction.onnx_backend import OnnxBackend

        return OnnxBackend(path, threads=threads)
    from segshrink.prediction.torch_backend import load_torch_backend

    return load_torch_backend(path, precision=precision)


def _is_backend(source: object) -> TypeGuard[Backend]:
    return callable(getattr(source, "run", None)) and hasattr(source, "num_classes")


def check_images(images: npt.NDArray[Any], *, bands: int, name: str) -> None:
    """Refuse a batch that is not (N, H, W, bands) or has no pixels.

    Raises:
        ModelError: The number of axes or bands differs from what the model takes.
    """
    if images.ndim != 4 or images.shape[-1] != bands or 0 in images.shape:
        raise ModelError(f"model '{name}' takes images (N, H, W, {bands}) with pixels in them, got {images.shape}")
