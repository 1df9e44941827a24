"""Running a model once on a small black image, to see shapes, without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError, first_line
from segshrink.models.model import SegmentationModel


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of data parallelism and ``torch.compile``."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a model or a module inside it is compiled, by ``torch.compile(model)`` or ``model.compile()``."""
    return any(module._compiled_call_impl is not None or hasattr(module, "_orig_mod") for module in model.modules())


def network_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Return what sees the image after scaling, padding and fitting, and its path.

    That is the ``network`` of a ``SegmentationModel``, or of another module that holds nothing else; else the module.
    """
    path: list[str] = []
    while [name for name, _ in model.named_children()] == ["network"]:
        model = model.get_submodule("network")
        path.append("network")
    return ".".join(path), model


def bands_of(model: nn.Module) -> int:
    """Return how many bands a model takes: as it says, or as many as its first convolution."""
    stated = next((module for module in model.modules() if isinstance(module, SegmentationModel)), None)
    if stated is not None:
        return stated.description.bands
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if convolution is None else convolution.in_channels


def dry_run(model: nn.Module, *, bands: int, size: int, images: Tensor | None = None) -> Any:
    """Run a model on one black image of ``size`` × ``size`` pixels, or on others, and return what it gives.

    In eval mode, without gradients, uncompiled; training flags, running averages and random numbers stay as they are.

    Raises:
        ModelError: The model can't take such an image.
    """
    weight = next(model.parameters(), torch.zeros(()))
    dtype = torch.float32 if isinstance(model, SegmentationModel) else weight.dtype
    black = torch.zeros(1, bands, size, size) if images is None else images
    images = black.to(weight.device, dtype)
    with _undisturbed(model):
        try:
            return model(images)
        except ModelError:
            raise
        except Exception as error:  # anything may go wrong in a foreign network
            raise ModelError(
                f"{type(model).__name__} can't be run on a black image of {size} × {size} pixels and {bands} bands "
                f"({first_line(error)}); it must take images (N, bands, H, W) alone, of any size whose sides are "
                "multiples of its 'stride'"
            ) from error


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    eager = torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext()
    with torch.random.fork_rng(devices=gpus), torch.inference_mode(False), torch.no_grad(), eager:
        # Module by module: a frozen batch normalization in a training network must come back frozen.
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
