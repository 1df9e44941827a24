"""Batch normalisation with the batch's own statistics, or with the running ones, for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

# The batch's own in every layer, or only in the first one that runs; or the running ones.
Statistics = Literal["batch", "first", "running"]


def batch_norms(module: nn.Module | None) -> list[_BatchNorm]:
    """Return the batch normalisations of a network that keep running statistics."""
    if module is None:
        return []
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


@contextmanager
def forced(module: nn.Module | None, statistics: Statistics | None) -> Iterator[None]:
    """Make every batch normalisation of ``module`` use these statistics, whatever its mode; None changes nothing.

    Running statistics that are not used are not changed either.
    """
    layers = batch_norms(module) if statistics else []
    first: list[_BatchNorm] = []
    for layer in layers:
        vars(layer)["forward"] = _replacement(layer, statistics, first)  # hides the class's until it is removed
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


@contextmanager
def kept(module: nn.Module | None) -> Iterator[None]:
    """Put the running statistics back to what they were, in case the network is in train mode and moves them."""
    buffers = {(layer, name): value.clone() for layer in batch_norms(module) for name, value in layer.named_buffers()}
    try:
        yield
    finally:
        for (layer, name), value in buffers.items():
            getattr(layer, name).copy_(value)


def _replacement(
    layer: _BatchNorm, statistics: Statistics | None, first: list[_BatchNorm]
) -> Callable[[Tensor], Tensor]:
    """Return a layer's forward pass with other statistics; ``first`` is filled by the layer that runs first."""

    def forward(features: Tensor) -> Tensor:
        if not first:
            first.append(layer)
        batch = statistics == "batch" or (statistics == "first" and first[0] is layer)
        mean, variance = (None, None) if batch else (layer.running_mean, layer.running_var)
        return F.batch_norm(features, mean, variance, layer.weight, layer.bias, training=batch, eps=layer.eps)

    return forward
