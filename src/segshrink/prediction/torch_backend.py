"""Prediction with torch, which is imported only when a backend is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import MissingExtraError, ModelError
from segshrink.prediction.backends import check_images

if TYPE_CHECKING:
    import torch
    from torch import nn

PRECISIONS = ("32", "bf16", "auto")


class TorchBackend:
    """Runs a ``SegmentationModel`` (or another module taking raw pixels) in torch.

    The model is put into evaluation mode for the length of a run only, every submodule's flag being restored
    afterwards, and is never moved or copied, so a model that is being trained can be validated with it. Images are
    given to it in channels-last order. Thread counts are left to the caller.

    Args:
        model: Takes (N, bands, H, W) raw pixel values, gives (N, C, H, W) logits.
        precision: ``"32"``, ``"bf16"`` (autocast) or ``"auto"``: bf16 on a GPU or a processor that computes in it.
        device: Where the model is put; by default it stays where it is.
        classes: The classes, for a module without a ``description``.
        bands: The number of bands, for a module without a ``description``.

    Raises:
        MissingExtraError: torch isn't installed.
        ModelError: The precision is unknown, or a module without a description comes without classes and bands.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: str = "auto",
        device: str | torch.device | None = None,
        classes: ClassMap | None = None,
        bands: int | None = None,
    ) -> None:
        require_torch()
        if precision not in PRECISIONS:
            raise ModelError(f"precision '{precision}' is unknown; use one of {', '.join(PRECISIONS)}")
        description: Any = getattr(model, "description", None)
        if description is not None:
            classes, bands = classes or description.classes, bands or description.bands
        if classes is None or bands is None:
            raise ModelError(f"{type(model).__name__} has no description; give its classes and its number of bands")
        self.name: str = getattr(description, "id", type(model).__name__)
        self.classes: ClassMap = classes
        self.num_classes: int = len(classes.names)
        self.bands: int = bands
        self.model = model if device is None else model.to(device)
        self.precision = precision

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into logits (N, num_classes, H, W)."""
        import torch

        check_images(images, bands=self.bands, name=self.name)
        anchor = next(self.model.parameters(), None)
        device = torch.device("cpu") if anchor is None else anchor.device
        batch = torch.from_numpy(_readable(images)).permute(0, 3, 1, 2).to(device)
        mixed = self.precision == "bf16" or (self.precision == "auto" and computes_in_bf16(device))
        # Older torch keeps weights cast in inference mode, and training then meets them in an outer autocast's cache.
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed, cache_enabled=False)
        with _evaluating(self.model), torch.inference_mode(), autocast:
            logits: torch.Tensor = self.model(batch)
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise ModelError(f"'{self.name}' gave {tuple(logits.shape)}, but (N, {self.num_classes}, H, W) is expected")
        return np.ascontiguousarray(logits.float().cpu().numpy())


def load_torch_backend(path: Path, *, precision: str = "auto") -> TorchBackend:
    """Load a model or run folder for prediction, on the GPU where there is one.

    Raises:
        MissingExtraError: torch isn't installed.
        ModelError: The folder holds no model.
    """
    require_torch()
    import torch

    from segshrink.models import load_model

    model = load_model(path).eval().to(memory_format=torch.channels_last)
    return TorchBackend(model, precision=precision, device="cuda" if torch.cuda.is_available() else "cpu")


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether bf16 is quicker than fp32 on a device: GPUs that support it, CPUs with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # torch offers no public name for this yet.
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def require_torch() -> None:
    """Raise ``MissingExtraError`` where torch isn't installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("running a model folder", "train") from error


def _readable(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give torch an array it can wrap: uint8 or float32, contiguous (hence channels-last once permuted), writable."""
    wanted = np.uint8 if images.dtype == np.uint8 else np.float32
    return np.require(images, dtype=wanted, requirements=["C", "W"])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
