"""Which channels of a network can only be removed together, found with Torch-Pruning's dependency graph.

Fang 2023, "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from segshrink.errors import MissingExtraError, ModelError
from segshrink.models.structure import size_names

Numbers = NDArray[np.int64]
# Layers that have channels of their own on both sides.
MIXING = (_ConvNd, nn.Linear)
# Stands for the network's output among the layers.
_OUTPUT = ""


class Axis(NamedTuple):
    """An axis of channels: a layer's output ("out"), its input ("in"), or a bare parameter's dimension ("0", "1", ...).

    Layers that treat each channel alone, as normalisation and depthwise convolutions do, have an "out" only.
    """

    path: str
    side: str


@dataclass(frozen=True)
class Block:
    """Channels that are alike: they run through the same layers, and any of them can be removed without the others.

    Attributes:
        members: Axis -> numbers of its channels (units, k): removing a unit removes k channels of the axis.
        fixed: Whether they must stay: they are the network's output, or a layer can't lose them.
    """

    members: dict[Axis, Numbers]
    fixed: bool

    @property
    def units(self) -> int:
        """How many can be removed one by one."""
        return len(next(iter(self.members.values())))

    @property
    def key(self) -> frozenset[Axis]:
        """What tells it from other blocks, before and after some of it is removed."""
        return frozenset(self.members)

    def step(self, round_to: int) -> int:
        """Return how many units must stay or go at once, so that layers keep multiples of ``round_to`` channels."""
        counts = {numbers.shape[1] for numbers in self.members.values()}
        return math.lcm(*(round_to // math.gcd(round_to, count) for count in counts))


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution that treats each channel alone."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels == layer.out_channels > 1


def channels_of(layer: nn.Module, side: str) -> int:
    """Return the number of channels of a layer's "out" or "in"."""
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    if isinstance(layer, MIXING):
        names = size_names(layer)
        return int(getattr(layer, names[1] if side == "out" else names[0]))
    return int(getattr(layer, size_names(layer)[0]))


def find_blocks(network: nn.Module, image: Tensor, *, keep: Collection[str] = ()) -> list[Block]:
    """Find the blocks of a network's channels, but those of the image.

    Args:
        network: The network; it is put in eval mode.
        image: An example of what it takes, (1, bands, H, W).
        keep: Paths of layers whose outputs must stay.

    Raises:
        MissingExtraError: Torch-Pruning isn't installed.
        ModelError: The network can't be traced.
    """
    links = _Links(network)
    graph = _trace(network, image)
    _refuse_reshaping(graph)
    for group in graph.get_all_groups(root_module_types=list(MIXING)):
        links.add_group(graph, group)
    links.tie_groups()
    links.fix([Axis(path, "out") for path in keep])
    return links.blocks()


def input_layers(network: nn.Module, image: Tensor) -> list[str]:
    """Return the paths of the layers that are given the image itself."""
    found: list[str] = []

    def see(path: str, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].data_ptr() == image.data_ptr():
            found.append(path)

    handles = [
        module.register_forward_pre_hook(lambda _, inputs, path=path: see(path, inputs))
        for path, module in network.named_modules()
        if isinstance(module, MIXING)
    ]
    try:
        with torch.no_grad():
            network.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


@dataclass
class _Links:
    """Axes of a network, whose channels get consecutive numbers, and pairs of channels that go together."""

    network: nn.Module
    starts: dict[Axis, int] = field(default_factory=dict)
    sizes: dict[Axis, int] = field(default_factory=dict)
    pairs: list[tuple[Numbers, Numbers]] = field(default_factory=list)
    fixed: list[Numbers] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = {module: path for path, module in self.network.named_modules()}
        self.parameters = {id(value): path for path, value in self.network.named_parameters()}

    def add_group(self, graph: Any, group: Any) -> None:
        """Add what Torch-Pruning would remove together; its channels are told by those of the first layer."""
        first = self._axis(graph, group[0].dep)
        if first is None or self.sizes[first] == 1:
            return
        for item in group.items:
            axis = self._axis(graph, item.dep)
            roots = self._numbers(first, item.root_idxs)
            if axis is None:
                if not type(item.dep.target.module).__name__.startswith("_"):  # Torch-Pruning's own are operations
                    self.fixed.append(roots)
            elif self.sizes[axis] == 1:
                continue  # one channel that is spread over all
            elif max(item.idxs) >= self.sizes[axis]:
                self.fixed.append(roots)
            else:
                self.pairs.append((roots, self._numbers(axis, item.idxs)))

    def tie_groups(self) -> None:
        """Let groups of a layer lose channels in the same places, so that they stay of equal size."""
        for axis, size in self.sizes.items():
            layer = None if axis.side.isdigit() or axis.path == _OUTPUT else self.network.get_submodule(axis.path)
            groups = 1
            if isinstance(layer, _ConvNd) and not is_depthwise(layer):
                groups = layer.groups
            elif isinstance(layer, nn.GroupNorm):
                groups = layer.num_groups
            everything = self._numbers(axis, range(size))
            if groups > 1:
                self.pairs.append((everything, self._numbers(axis, [n % (size // groups) for n in range(size)])))
            odd = isinstance(layer, _ConvNd) and groups > 1 and groups in (layer.in_channels, layer.out_channels)
            if odd or (isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) != 1):
                self.fixed.append(everything)

    def fix(self, axes: Collection[Axis]) -> None:
        """Let the channels of axes stay."""
        self.fixed += [self._numbers(axis, range(self.sizes[axis])) for axis in axes if axis in self.sizes]

    def blocks(self) -> list[Block]:
        """Return channels that go together, those that are alike in one block."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        total = sum(self.sizes.values())
        empty = np.zeros(0, np.int64)
        left = np.concatenate([pair[0] for pair in self.pairs] or [empty])
        right = np.concatenate([pair[1] for pair in self.pairs] or [empty])
        matrix = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(total, total))
        _, labels = connected_components(matrix, directed=False)
        fixed = {int(label) for numbers in self.fixed for label in labels[numbers]}
        units: dict[int, dict[Axis, list[int]]] = defaultdict(lambda: defaultdict(list))
        for axis, start in self.starts.items():
            for number, label in enumerate(labels[start : start + self.sizes[axis]].tolist()):
                units[label][axis].append(number)
        alike: dict[Any, list[int]] = defaultdict(list)
        for label, members in units.items():
            alike[frozenset((axis, len(numbers)) for axis, numbers in members.items())].append(label)
        return [
            Block(
                {axis: np.array([units[label][axis] for label in found], np.int64) for axis in units[found[0]]},
                fixed=any(label in fixed for label in found) or not any(map(self._makes, units[found[0]])),
            )
            for found in alike.values()
        ]

    def _makes(self, axis: Axis) -> bool:
        """Tell whether channels begin at an axis; where they begin at none, they are the image's."""
        return axis.side == "out" and axis.path != _OUTPUT and _has_two_sides(self.network.get_submodule(axis.path))

    def _axis(self, graph: Any, dependency: Any) -> Axis | None:
        """Return the axis that a step of a group is about; None: an operation, or a layer that can't lose channels."""
        module = dependency.target.module
        if isinstance(module, nn.Parameter):
            axis = Axis(self.parameters[id(module)], str(dependency.target.pruning_dim % module.ndim))
            return self._known(axis, module.shape[int(axis.side)])
        if type(module).__name__ == "_OutputOp":
            axis = self._known(Axis(_OUTPUT, "out"), int(module.shape[1]))
            self.fix([axis])
            return axis
        if not size_names(module):
            return None
        outward = graph.is_out_channel_pruning_fn(dependency.handler)
        axis = Axis(self.paths[module], "out" if outward or not _has_two_sides(module) else "in")
        return self._known(axis, channels_of(module, axis.side))

    def _known(self, axis: Axis, size: int) -> Axis:
        if axis not in self.sizes:
            self.starts[axis] = sum(self.sizes.values())
            self.sizes[axis] = size
        return axis

    def _numbers(self, axis: Axis, channels: Any) -> Numbers:
        return np.asarray(list(channels), np.int64) + self.starts[axis]


def _has_two_sides(layer: nn.Module) -> bool:
    return isinstance(layer, MIXING) and not is_depthwise(layer)


def _trace(network: nn.Module, image: Tensor) -> Any:
    """Build Torch-Pruning's dependency graph of a network."""
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtraError("making a network smaller", "compress") from error
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            return torch_pruning.DependencyGraph().build_dependency(
                network,
                example_inputs=(image,),
                # A step behind the last layer, so that the output is always known as such.
                output_transform=_behind,
                verbose=False,
            )
        except Exception as error:  # anything may go wrong in a foreign network
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ModelError(
                f"the network's layers can't be followed ({told}), so none can be made smaller; distil it into another "
                "network"
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
        if not pooled and not within_linear:
            before, seen = list(node.inputs), {node}
            while before and not (before[0].name and before[0].name in _layer_names(graph)):
                seen.add(before[0])
                before = [*before[1:], *(other for other in before[0].inputs if other not in seen)]
            where = f"behind '{before[0].name.partition(' (')[0]}'" if before else "somewhere"
            raise ModelError(
                f"the network folds its features {where}, as attention does, so that its channels can't be removed one "
                "by one; distil it into another network"
            )


def _layer_names(graph: Any) -> set[str]:
    return {node.name for module, node in graph.module2node.items() if isinstance(module, MIXING)}


def _behind(output: Any) -> Any:
    return output * 1.0


def axes_by_layer(axes: Collection[Axis]) -> Iterator[tuple[str, list[Axis]]]:
    """List paths with their axes."""
    found: dict[str, list[Axis]] = defaultdict(list)
    for axis in axes:
        if axis.path != _OUTPUT:
            found[axis.path].append(axis)
    yield from found.items()
