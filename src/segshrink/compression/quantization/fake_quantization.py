"""A network that computes in float32 with the rounding of 8-bit integers, so that training can make up for it."""

from __future__ import annotations

from collections.abc import Iterator
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

    The gradient passes through the rounding unchanged (Bengio et al., 2013, arXiv:1308.3432). Batch normalisation
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
        low: Lower end of the range, at most 0; None before the first batch.
        high: Upper end of the range, at least 0.
        rounding: Whether it rounds, or only observes.
    """

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.rounding = True
        self._batches = 0

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Stand before ``layer``, as a forward pre-hook."""
        images, *rest = inputs
        if layer.training or not self.rounding or self.low is None:
            self._observe(images.detach())
        return (self.round(images), *rest) if self.rounding else inputs

    def round(self, values: Tensor) -> Tensor:
        """Return ``values``, float32 of any shape, rounded and clipped."""
        assert self.low is not None  # noqa: S101  # the range is observed before
        assert self.high is not None  # noqa: S101
        scale = ((self.high - self.low) / LARGEST_ACTIVATION).clamp_min(TINY)
        zero = (-self.low / scale).round().clamp(0, LARGEST_ACTIVATION).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LARGEST_ACTIVATION)

    def _observe(self, values: Tensor) -> None:
        low, high = values.amin().clamp_max(0).float(), values.amax().clamp_min(0).float()
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        else:
            share = max(MOMENTUM, 1 / (self._batches + 1))  # a plain mean at first
            self.low, self.high = torch.lerp(self.low, low, share), torch.lerp(self.high, high, share)
        self._batches += 1


class FakeQuantization:
    """All rounding inside a network: of the weights, and of what goes into each layer.

    Attributes:
        inputs: The rounding of activations, by the names of the layers.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.inputs: dict[str, FakeQuantizedInput] = {}
        self._hooks = []
        for name, layer in list(network.named_modules()):
            if isinstance(layer, LAYERS):
                axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                parametrize.register_parametrization(layer, "weight", FakeQuantizedWeight(axis))
                self.inputs[name] = FakeQuantizedInput()
                self._hooks.append(layer.register_forward_pre_hook(self.inputs[name]))

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Let activations pass unrounded inside the block, while their ranges are observed."""
        for rounding in self.inputs.values():
            rounding.rounding = False
        try:
            yield
        finally:
            for rounding in self.inputs.values():
                rounding.rounding = True

    def remove(self) -> None:
        """Take all rounding out again; weights keep their trained, unrounded values."""
        for hook in self._hooks:
            hook.remove()
        for module in self.network.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


@contextmanager
def fake_quantized(network: nn.Module) -> Iterator[FakeQuantization]:
    """Round inside ``network`` for the length of a block, and leave plain layers behind.

    Args:
        network: Its convolutions, transposed convolutions and linear layers are concerned. Run it in 32 bits: bf16
            can't tell neighbouring steps of 8-bit numbers apart.
    """
    rounding = FakeQuantization(network)
    try:
        yield rounding
    finally:
        rounding.remove()
