"""Networks of torch, which is imported only when a backend is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segshrink.classes import ClassMap
from segshrink.errors import ModelError, first_line
from segshrink.extras import needing
from segshrink.model_description import ModelDescription
from segshrink.prediction.backends import PRECISIONS, check_images

if TYPE_CHECKING:
    import torch
    from torch import nn


class TorchBackend:
    """Runs a ``SegmentationModel`` (or another module taking raw pixels) in torch.

    The model is put into evaluation mode for the length of a run only, every submodule's flag being restored
    afterwards, and is never moved or copied, so a model that is being trained can be validated with it. Images are
    given to it in channels-last order.

    Args:
        model: Takes (N, bands, H, W) raw pixel values, gives (N, C, H, W) logits.
        precision: ``"32"``, ``"bf16"`` (autocast) or ``"auto"``: bf16 on a GPU or a processor that computes in it.
        compiled: Run it through ``torch.compile``, which takes half a minute at the first image of a size.
        threads: Threads of torch while it runs; by default torch's setting.
        device: Where the model is put; by default it stays where it is.
        classes: The classes, for a module without a ``description``.
        bands: The number of bands, for a module without a ``description``.

    Raises:
        MissingExtraError: torch isn't installed.
        ModelError: The precision is unknown or not the device's, or a module without a description comes without
            classes and bands.
    """

    own_tile: int | None = None

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: str = "auto",
        compiled: bool = False,
        threads: int | None = None,
        device: str | torch.device | None = None,
        classes: ClassMap | None = None,
        bands: int | None = None,
    ) -> None:
        require_torch()
        if precision not in PRECISIONS:
            raise ModelError(f"precision '{precision}' is unknown; use one of {', '.join(PRECISIONS)}")
        self.description: ModelDescription | None = getattr(model, "description", None)
        if (description := self.description) is not None:
            classes, bands = classes or description.classes, bands or description.bands
        if classes is None or bands is None:
            raise ModelError(f"{type(model).__name__} has no description; give its classes and its number of bands")
        self.name: str = description.id if description is not None else type(model).__name__
        self.classes: ClassMap = classes
        self.num_classes: int = len(classes.names)
        self.bands: int = bands
        self.model = model if device is None else model.to(device)
        self.precision = precision
        self.runtime: str = "torch-compile" if compiled else "torch"
        self._threads = threads
        self._call: Callable[[torch.Tensor], torch.Tensor] = _compiled(self.model) if compiled else self.model
        if precision == "bf16" and not computes_in_bf16(self._device):
            raise ModelError(f"{self._device} doesn't compute in bf16; use precision 32 or auto")

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn raw pixel values (N, H, W, bands) into logits (N, num_classes, H, W)."""
        return np.ascontiguousarray(self._run(images, lambda logits: logits.float()))

    def classify(self, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn raw pixel values (N, H, W, bands) into the most likely class (N, H, W), the first of equals."""
        import torch

        # argmax gives the same and takes six times as long on a CPU.
        return self._run(images, lambda logits: logits.max(dim=1).indices.to(torch.uint8))

    @property
    def _device(self) -> torch.device:
        import torch

        anchor = next(self.model.parameters(), None)
        return torch.device("cpu") if anchor is None else anchor.device

    def _run(self, images: npt.NDArray[Any], read: Callable[[torch.Tensor], torch.Tensor]) -> npt.NDArray[Any]:
        import torch

        check_images(images, bands=self.bands, name=self.name)
        device = self._device
        # What torch can wrap: uint8 or float32, contiguous (hence channels-last once permuted), writable.
        dtype = np.uint8 if images.dtype == np.uint8 else np.float32
        readable = np.require(images, dtype=dtype, requirements=["C", "W"])
        batch = torch.from_numpy(readable).permute(0, 3, 1, 2).to(device)
        mixed = self.precision == "bf16" or (self.precision == "auto" and computes_in_bf16(device))
        # Older torch keeps weights cast in inference mode, and training then meets them in an outer autocast's cache.
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed, cache_enabled=False)
        with _threads(self._threads), _evaluating(self.model), torch.inference_mode(), autocast:
            logits = self._call(batch)
            if logits.ndim != 4 or logits.shape[1] != self.num_classes:
                raise ModelError(
                    f"'{self.name}' gave {tuple(logits.shape)}, but (N, {self.num_classes}, H, W) is expected"
                )
            answer: npt.NDArray[Any] = read(logits).cpu().numpy()
        return answer


def load_torch_backend(
    path: Path, *, precision: str = "auto", compiled: bool = False, threads: int | None = None, trust: bool = False
) -> TorchBackend:
    """Load a model or run folder or a Keras file for prediction, on the GPU where there is one.

    Raises:
        MissingExtraError: torch isn't installed.
        ModelError: The folder holds no model.
    """
    require_torch()
    import torch

    from segshrink.models import load_model

    model = load_model(path, trust=trust).eval().to(memory_format=torch.channels_last)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TorchBackend(model, precision=precision, compiled=compiled, threads=threads, device=device)


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether bf16 is quicker than fp32 on a device: GPUs that support it, CPUs with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public name for this yet.
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def require_torch() -> None:
    """Raise ``MissingExtraError`` where torch isn't installed."""
    with needing("running a model folder", "train"):
        import torch  # noqa: F401


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _compiled(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a module's compiled twin; the module itself stays as it is."""
    import torch

    twin = torch.compile(model)

    def call(images: torch.Tensor) -> torch.Tensor:
        try:
            logits: torch.Tensor = twin(images)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise ModelError(f"torch can't compile the model ({first_line(error)}); use runtime torch") from error
        return logits

    return call
