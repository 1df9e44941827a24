"""A network that computes in float32 with the rounding of 8-bit integers, so that training can make up for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Weights use 7 of their bits, as the files do, and a scale serves both signs; activations are unsigned.
LARGEST_WEIGHT = 64
LARGEST_ACTIVATION = 255
# Share of a new batch in the ranges of activations.
MOMENTUM = 0.01
TINY = 1e-12

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class FakeQuantizedWeight(nn.Module):
    """Rounds a weight to signed 7-bit steps, one scale for each output channel, symmetric about 0.

    The gradient passes through the rounding unchanged (Bengio et al., 2013, arXiv:1308.3432). Batch normalization
    behind the layer multiplies channels, which commutes with a scale for each of them: rounding before it is folded in
    is rounding after.

    Args:
        axis: Dimension of the output channels.
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` rounded; same shape, float32."""
        others = [dimension for dimension in range(weight.ndim) if dimension != self.axis]
        with torch.no_grad():
            scale = (weight.abs().amax(dim=others) / LARGEST_WEIGHT).clamp_min(TINY)
            zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, self.axis, -LARGEST_WEIGHT, LARGEST_WEIGHT)


class FakeQuantizedInput:
    """Rounds what goes into a layer to unsigned 8-bit steps between its usual least and largest value.

    The range is a moving average over training batches and holds 0; in evaluation it stays. Values outside are clipped
    and get no gradient, others the gradient of what they were rounded to.

    Attributes:
        range: The least and the largest value of the range, at most and at least 0; None before the first batch.
        rounding: Whether it rounds, or only observes.
    """

    def __init__(self) -> None:
        self.range: Tensor | None = None
        self.rounding = True
        self._batches = 0

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Round as a forward pre-hook of ``layer``."""
        images, *rest = inputs
        if layer.training or not self.rounding or self.range is None:
            self.range = self._observed(images.detach())
        return (rounded(images, self.range), *rest) if self.rounding else inputs

    def _observed(self, values: Tensor) -> Tensor:
        new = torch.stack([values.amin().clamp_max(0), values.amax().clamp_min(0)]).float()
        self._batches += 1
        # A plain mean at first.
        return new if self.range is None else torch.lerp(self.range, new, max(MOMENTUM, 1 / self._batches))


def rounded(values: Tensor, limits: Tensor) -> Tensor:
    """Return float32 values of any shape rounded to unsigned 8-bit steps and clipped.

    Args:
        values: The values.
        limits: (2,) the least and the largest value that can be told apart, at most and at least 0.
    """
    low, high = limits
    scale = ((high - low) / LARGEST_ACTIVATION).clamp_min(TINY)
    zero = (-low / scale).round().clamp(0, LARGEST_ACTIVATION).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LARGEST_ACTIVATION)


@contextmanager
def fake_quantized(network: nn.Module) -> Iterator[dict[str, FakeQuantizedInput]]:
    """Round inside ``network`` for the length of a block: weights, and what goes into each layer.

    Plain layers with the trained, unrounded weights are left behind.

    Args:
        network: Its convolutions, transposed convolutions and linear layers are concerned. Run it in 32 bits: bf16
            can't tell neighboring steps of 8-bit numbers apart.

    Yields:
        The rounding of activations, by the names of the layers.
    """
    inputs = {}
    hooks = []
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LAYERS):
            axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            parametrize.register_parametrization(layer, "weight", FakeQuantizedWeight(axis))
            inputs[name] = FakeQuantizedInput()
            hooks.append(layer.register_forward_pre_hook(inputs[name]))
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


@contextmanager
def observing(inputs: Mapping[str, FakeQuantizedInput]) -> Iterator[None]:
    """Let activations pass unrounded inside the block, while their ranges are observed."""
    for rounding in inputs.values():
        rounding.rounding = False
    try:
        yield
    finally:
        for rounding in inputs.values():
            rounding.rounding = True
