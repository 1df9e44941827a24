"""What a network costs when some of its channels are gone, without removing them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from segshrink.compression.pruning.channels import MIXING, Axis, Block, channels_of, is_depthwise
from segshrink.models import SegmentationModel, count_parameters
from segshrink.models.structure import size_names

# An amount, and the axes that it is proportional to.
_Part = tuple[float, tuple[Axis, ...]]


@dataclass(frozen=True)
class Cost:
    """A sum of parts that are proportional to numbers of channels.

    Attributes:
        rest: What doesn't depend on channels.
        parts: What is proportional to the channels of axes.
        channels: Axis -> its channels when nothing is removed.
    """

    rest: float
    parts: Sequence[_Part]
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


def cost_of(model: SegmentationModel, blocks: Sequence[Block], measure: str, *, size: int) -> Cost:
    """Return a model's cost as it depends on channels.

    Args:
        model: The model, in eval mode.
        blocks: Its channels.
        measure: "channels" (all that blocks may lose one by one), "parameters", or "macs": multiply-accumulates.
        size: Side in pixels of the image for "macs".
    """
    if measure == "channels":
        units: Counter[Axis] = Counter()
        sizes: Counter[Axis] = Counter()
        for block in blocks:
            axis, numbers = next(iter(block.members.items()))  # that of its root, which other blocks may share
            units[axis] += block.units
            sizes[axis] += numbers.size
        return Cost(0.0, [(float(count), (axis,)) for axis, count in units.items()], sizes)
    layers = _axes(model)
    channels = {
        axis: channels_of(model.network.get_submodule(path), axis.side)
        for path, axes in layers.items()
        for axis in axes
    }
    total, parts = _macs(model, layers, size) if measure == "macs" else _parameters(model, layers)
    for axis in {axis for block in blocks for axis in block.members if axis.side.isdigit() and measure != "macs"}:
        value = model.network.get_parameter(axis.path)
        channels[axis] = value.shape[int(axis.side)]
        parts.append((value.numel(), (axis,)))
    return Cost(total - sum(amount for amount, _ in parts), parts, channels)


def _parameters(model: SegmentationModel, layers: Mapping[str, tuple[Axis, ...]]) -> tuple[float, list[_Part]]:
    """Return a model's parameters, and those of its layers."""
    parts: list[_Part] = [
        (float(value.numel()), axes if name == "weight" else axes[:1])
        for path, axes in layers.items()
        for name, value in model.network.get_submodule(path).named_parameters(recurse=False)
    ]
    return count_parameters(model), parts


def _macs(model: SegmentationModel, layers: Mapping[str, tuple[Axis, ...]], size: int) -> tuple[float, list[_Part]]:
    """Return a model's multiply-accumulates, and those of its layers."""
    image = torch.zeros(1, model.description.bands, size, size, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    names = {f"{type(model).__name__}.network.{path}": axes for path, axes in layers.items()}
    return counter.get_total_flops() / 2, [(flops[name] / 2, axes) for name, axes in names.items() if name in flops]


def _axes(model: SegmentationModel) -> dict[str, tuple[Axis, ...]]:
    """Return the axes that the weight of each layer is proportional to, its outputs first."""
    axes: dict[str, tuple[Axis, ...]] = {}
    for path, layer in model.network.named_modules():
        if size_names(layer):
            outputs = Axis(path, "out")
            mixes = isinstance(layer, MIXING) and not is_depthwise(layer)
            axes[path] = (outputs, Axis(path, "in")) if mixes else (outputs,)
    return axes
