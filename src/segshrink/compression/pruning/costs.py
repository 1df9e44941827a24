"""What a network costs when some of its channels are gone, without removing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from segshrink.compression.pruning.channels import MIXING, Axis, Block, channels_of, is_depthwise
from segshrink.models import SegmentationModel, count_parameters
from segshrink.models.structure import size_names
from segshrink.profiling.profile import count_macs

# An amount that shrinks with the channels of each of these axes.
_Part = tuple[float, tuple[Axis, ...]]


@dataclass(frozen=True)
class Cost:
    """A sum of parts that are proportional to numbers of channels.

    Attributes:
        rest: What doesn't depend on channels.
        parts: Amounts, and the axes that they are proportional to.
        channels: Axis -> its channels when nothing is removed.
    """

    rest: float
    parts: tuple[_Part, ...]
    channels: Mapping[Axis, int]

    def of(self, blocks: Sequence[Block], kept: Sequence[int]) -> float:
        """Return the cost when of each block so many units stay."""
        left = dict(self.channels)
        for block, units in zip(blocks, kept, strict=True):
            for axis, numbers in block.members.items():
                if axis in left:
                    left[axis] -= (block.units - units) * numbers.shape[1]
        return self.rest + sum(
            amount * math.prod(left[axis] / self.channels[axis] for axis in axes) for amount, axes in self.parts
        )

    def saved_by_unit(self, blocks: Sequence[Block]) -> list[float]:
        """Return what removing one unit of a block saves while all else stays."""
        everything = [block.units for block in blocks]
        whole = self.of(blocks, everything)
        return [
            whole - self.of(blocks, [*everything[:number], block.units - 1, *everything[number + 1 :]])
            for number, block in enumerate(blocks)
        ]


def parameter_cost(model: SegmentationModel, blocks: Sequence[Block]) -> Cost:
    """Return a model's number of parameters as it depends on channels."""
    parts: list[_Part] = []
    channels: dict[Axis, int] = {}
    for path, layer in model.network.named_modules():
        if size_names(layer):
            axes = _axes(path, layer)
            channels |= {axis: channels_of(layer, axis.side) for axis in axes}
            for name, value in layer.named_parameters(recurse=False):
                parts.append((value.numel(), axes if name == "weight" else axes[:1]))
    for axis in {axis for block in blocks for axis in block.members if axis.side.isdigit()}:
        value = model.network.get_parameter(axis.path)
        channels[axis] = value.shape[int(axis.side)]
        parts.append((value.numel(), (axis,)))
    return Cost(count_parameters(model) - sum(amount for amount, _ in parts), tuple(parts), channels)


def mac_cost(model: SegmentationModel, *, size: int) -> Cost:
    """Return a model's multiply-accumulates for an image of ``size`` × ``size`` pixels as they depend on channels."""
    channels: dict[Axis, int] = {}
    parts: list[_Part] = []
    handles = [
        layer.register_forward_hook(lambda layer, inputs, output, path=path: see(path, layer, inputs, output))
        for path, layer in model.network.named_modules()
        if isinstance(layer, MIXING)
    ]

    def see(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        axes = _axes(path, layer)
        channels.update({axis: channels_of(layer, axis.side) for axis in axes})
        positions = output.numel() / channels_of(layer, "out")
        if isinstance(layer, _ConvTransposeNd):
            positions = inputs[0].numel() / channels_of(layer, "in")
        parts.append((positions * layer.get_parameter("weight").numel(), axes))

    try:
        with torch.no_grad():
            total = count_macs(model, size=size)
    finally:
        for handle in handles:
            handle.remove()
    return Cost(total - sum(amount for amount, _ in parts), tuple(parts), channels)


def _axes(path: str, layer: nn.Module) -> tuple[Axis, ...]:
    """Return the axes that a layer's weight is proportional to, its outputs first."""
    outputs = Axis(path, "out")
    return (outputs, Axis(path, "in")) if isinstance(layer, MIXING) and not is_depthwise(layer) else (outputs,)
