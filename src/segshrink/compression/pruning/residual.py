"""Residual blocks that a network can do without: what comes out has the shape of what goes in."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from segshrink.models import SegmentationModel

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def removable_blocks(model: SegmentationModel, images: Tensor) -> dict[str, float]:
    """List the residual blocks of a network whose input and output agree in shape.

    A module is one when it gives back what it is given once all its parameters are 0, and no module inside it does.

    Args:
        model: The model.
        images: Raw pixels (N, bands, H, W).

    Returns:
        Path -> how much the block changes what goes through it, as a share of it; in the order in which they run.
    """
    changes: dict[str, float] = {}

    def see(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs else None
        if isinstance(given, Tensor) and isinstance(output, Tensor) and given.ndim == 4 and given.shape == output.shape:
            changes[path] = float((output - copies[path]).norm() / copies[path].norm().clamp_min(1e-12))

    copies: dict[str, Tensor] = {}

    def remember(path: str, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            copies[path] = inputs[0].clone()

    handles = []
    for path, module in model.network.named_modules():
        if path and _may_be_one(module):
            handles.append(module.register_forward_pre_hook(lambda _, given, path=path: remember(path, given)))
            handles.append(module.register_forward_hook(lambda _, given, output, path=path: see(path, given, output)))
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    found = [path for path in changes if _passes(model.network.get_submodule(path), copies[path])]
    inner = [path for path in found if not any(other.startswith(f"{path}.") for other in found)]
    return {path: changes[path] for path in changes if path in inner}


def _may_be_one(module: nn.Module) -> bool:
    parts = [type(part) for part in module.modules()]
    return len(parts) > 2 and any(issubclass(kind, _NORMS) for kind in parts)


def _passes(module: nn.Module, given: Tensor) -> bool:
    """Tell whether a module without parameters gives what it is given; activations between 0 and 1 are let through."""
    emptied = deepcopy(module).eval()
    probe = torch.rand(given.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in emptied.parameters():
            parameter.zero_()
        try:
            return torch.equal(emptied(probe), probe)
        except (TypeError, RuntimeError):
            return False
