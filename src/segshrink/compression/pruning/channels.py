"""Which channels of a network can only be removed together, and removing them, by Torch-Pruning's dependency graph.

Fang 2023, "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from segshrink.errors import ModelError, one_line
from segshrink.extras import needing
from segshrink.models.outputs import chosen_output
from segshrink.models.structure import size_names

Numbers = NDArray[np.int64]
# Layers that have separate channels on both sides.
MIXING = (_ConvNd, nn.Linear)


class Axis(NamedTuple):
    """An axis of channels: a layer's output ("out"), its input ("in"), or a bare parameter's dimension ("0", "1", ...).

    Layers that treat each channel alone, as normalization and depthwise convolutions do, have an "out" only.
    """

    path: str
    side: str


@dataclass(frozen=True)
class Block:
    """Channels that are alike: they run through the same layers, and any of them can be removed without the others.

    Attributes:
        root: The layer whose outputs they begin as.
        channels: Numbers of the root's outputs (units, k): removing a unit removes k of them.
        members: Axis -> numbers of its channels (units, k).
        fixed: Whether they must stay: they are the network's output, or a layer can't lose them.
    """

    root: nn.Module
    channels: Numbers
    members: dict[Axis, Numbers]
    fixed: bool

    @property
    def units(self) -> int:
        """How many can be removed one by one."""
        return len(self.channels)

    @property
    def key(self) -> frozenset[Axis]:
        """What tells it from other blocks, before and after some of it is removed."""
        return frozenset(self.members)

    def step(self, round_to: int) -> int:
        """Return how many units must stay or go at once, so that layers keep multiples of ``round_to`` channels."""
        counts = {numbers.shape[1] for numbers in self.members.values()}
        return math.lcm(*(round_to // math.gcd(round_to, count) for count in counts))


class ChannelGraph:
    """Follows the channels of a network from layer to layer.

    Args:
        network: The network; it is put in eval mode.
        image: An example of what it takes, (1, bands, H, W).

    Raises:
        MissingExtraError: Torch-Pruning isn't installed.
        ModelError: The network can't be traced.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        self._graph = _trace(network, image)
        _refuse_reshaping(self._graph)
        self._paths: dict[Any, str] = {module: path for path, module in network.named_modules()}
        self._paths |= {parameter: path for path, parameter in network.named_parameters()}

    def blocks(self, *, keep_inputs: bool) -> list[Block]:
        """Return the blocks of channels.

        Args:
            keep_inputs: Whether the layers that are given the image keep their outputs.
        """
        # Nothing before these layers takes part in the graph of gradients.
        first = (
            {module for module, node in self._graph.module2node.items() if not node.inputs} if keep_inputs else set()
        )
        groups = self._graph.get_all_groups(root_module_types=list(MIXING))
        return [block for group in groups for block in self._blocks_of(group, first)]

    def remove(self, blocks: Sequence[Block], kept: Sequence[Numbers]) -> None:
        """Remove all units of blocks but those kept; the others keep their order and their weights.

        Args:
            blocks: Blocks of this graph.
            kept: Numbers of the units of each block that stay.
        """
        removed: dict[nn.Module, list[int]] = defaultdict(list)
        for block, units in zip(blocks, kept, strict=True):
            gone = np.setdiff1d(np.arange(block.units), units)
            removed[block.root] += block.channels[gone].ravel().tolist()
        for root, channels in removed.items():
            if channels:
                prune_outputs = self._graph.get_pruner_of_module(root).prune_out_channels
                self._graph.get_pruning_group(root, prune_outputs, sorted(channels)).prune()

    def _blocks_of(self, group: Any, kept: set[Any]) -> list[Block]:
        """Divide what Torch-Pruning removes together into blocks; its channels are told by those of its root."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        root = group[0].dep.target.module
        size = channels_of(root, "out")
        fixed = np.full(size, size == 1)
        ties = [(np.arange(size), np.arange(size))]
        members: list[tuple[Axis, Numbers, Numbers]] = []
        for item in group.items:
            module = item.dep.target.module
            numbers, roots = np.asarray(item.idxs, np.int64), np.asarray(item.root_idxs, np.int64)
            axis, channels = self._axis(item.dep)
            if axis is None:
                # Operations of Torch-Pruning follow; the output, and layers that it doesn't know, don't.
                is_operation = type(module).__name__.startswith("_") and type(module).__name__ != "_OutputOp"
                fixed[roots] |= not is_operation
                continue
            if channels == 1:
                continue  # one channel that is spread over all
            groups = _groups(module)
            if groups is None or numbers.max() >= channels or (groups > 1 and len(numbers) != channels):
                fixed[roots] = True
                continue
            if axis.side == "out" and module in kept:
                fixed[roots] = True
            if groups > 1:  # groups lose channels in the same places, so that they stay of equal size
                place = np.empty(channels, np.int64)
                place[numbers] = roots
                ties.append((roots, place[numbers % (channels // groups)]))
            members.append((axis, numbers, roots))
        left, right = (np.concatenate([pair[side] for pair in ties]) for side in (0, 1))
        matrix = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
        count, units = connected_components(matrix, directed=False)
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        touched = [np.bincount(units[roots], minlength=count) for _, _, roots in members]
        unit_fixed = np.bincount(units, fixed, minlength=count) > 0
        for unit in range(count):
            alike[unit_fixed[unit], *(counts[unit] for counts in touched)].append(unit)
        return [
            Block(
                root,
                np.stack([np.flatnonzero(units == unit) for unit in same]),
                {
                    axis: np.stack([numbers[units[roots] == unit] for unit in same])
                    for axis, numbers, roots in members
                    if (units[roots] == same[0]).any()
                },
                fixed=bool(unit_fixed[same[0]]),
            )
            for same in alike.values()
        ]

    def _axis(self, dependency: Any) -> tuple[Axis | None, int]:
        """Return the axis that a step of a group is about, and its channels; None: neither layer nor parameter."""
        module = dependency.target.module
        if isinstance(module, nn.Parameter):
            dimension = dependency.target.pruning_dim % module.ndim
            return Axis(self._paths[module], str(dimension)), module.shape[dimension]
        if not size_names(module):
            return None, 0
        outward = self._graph.is_out_channel_pruning_fn(dependency.handler)
        side = "out" if outward or not isinstance(module, MIXING) or is_depthwise(module) else "in"
        return Axis(self._paths[module], side), channels_of(module, side)


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution that treats each channel alone."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels == layer.out_channels > 1


def channels_of(layer: nn.Module, side: str) -> int:
    """Return the number of channels of a layer's "out" or "in"."""
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    names = size_names(layer)
    return int(getattr(layer, names[1] if side == "out" and isinstance(layer, MIXING) else names[0]))


def _groups(layer: nn.Module) -> int | None:
    """Return the number of a layer's groups, which must stay of equal size; None: it can't lose channels."""
    if isinstance(layer, nn.LayerNorm):
        return 1 if len(layer.normalized_shape) == 1 else None
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    if not isinstance(layer, _ConvNd) or is_depthwise(layer) or layer.groups == 1:
        return 1
    return None if layer.groups in (layer.in_channels, layer.out_channels) else layer.groups


def _trace(network: nn.Module, image: Tensor) -> Any:
    """Build Torch-Pruning's dependency graph of a network."""
    with needing("making a network smaller", "compress"):
        import torch_pruning
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            return torch_pruning.DependencyGraph().build_dependency(
                network,
                example_inputs=(image,),
                # A step behind the last layer, so that the output is always known as such.
                output_transform=lambda output: chosen_output(output) * 1.0,
                verbose=False,
            )
        except Exception as error:  # anything may go wrong in a foreign network
            raise ModelError(
                f"the network's layers can't be followed ({one_line(error)}), so none can be made smaller; distill it "
                "into another network"
            ) from error


def _refuse_reshaping(graph: Any) -> None:
    """Refuse a network that folds its features, where channels can't be told from positions any more.

    Raises:
        ModelError: It does, as attention and channel shuffling do; names a layer before it.
    """
    for node in graph.module2node.values():
        if type(node.module).__name__ not in ("_ReshapeOp", "_UnbindOp"):
            continue
        sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
        pooled = sizes is not None and math.prod(sizes[2:]) == 1
        within_linear = any("mmBackward" in str(getattr(other.module, "_grad_fn", "")) for other in node.outputs)
        if pooled or within_linear:
            continue
        before, visited = list(node.inputs), {node}
        while before and not isinstance(before[0].module, MIXING):
            visited.add(before[0])
            before = [*before[1:], *(other for other in before[0].inputs if other not in visited)]
        place = f"behind '{before[0].name.partition(' (')[0]}'" if before else "somewhere"
        raise ModelError(
            f"the network folds its features {place}, as attention does, so that its channels can't be removed one by "
            "one; distill it into another network"
        )
