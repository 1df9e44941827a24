"""A smaller copy of a network: narrower with the channels that matter most, shallower without some residual blocks."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from segshrink.compression.pruning.importance import example_images, unit_importance
from segshrink.compression.pruning.prune import best_units, removable
from segshrink.compression.pruning.smaller_copy import channel_graph, check_runs, finished, thawed_copy
from segshrink.errors import ModelError, UsageError
from segshrink.models import SegmentationModel
from segshrink.models.structure import remove_block

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def shrink(
    model: SegmentationModel,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    round_to: int = 8,
    images: Tensor | None = None,
) -> SegmentationModel:
    """Return a smaller copy of a model that inherits the weights that matter most.

    Args:
        model: The model; it isn't changed.
        width: Share of its channels that every layer keeps, in (0, 1]: those whose removal would change the logits
            most. The logits' layer keeps all its outputs.
        depth: Share of the residual blocks whose input and output agree in shape that stay, in (0, 1]: those that
            change most what goes through them.
        round_to: Layers keep the nearest multiple of this many channels, at least one.
        images: Raw pixels (N, bands, H, W) of the kind that the model is for: they say what matters, and running
            averages are taken over them anew. If None, random blobs with the mean and deviation that the model
            normalizes with say what matters.

    Raises:
        UsageError: A share out of range, or both 1.
        ModelError: No such residual blocks; a network whose layers can't be followed; a layer that doesn't follow when
            others lose channels.
        MissingExtraError: Torch-Pruning isn't installed.
    """
    for name, share in (("width", width), ("depth", depth)):
        if not 0 < share <= 1:
            raise UsageError(f"{name} is the share that stays, above 0 and at most 1, found {share}")
    if width == depth == 1:
        raise UsageError("width and depth are both 1, which changes nothing; make one of them smaller")
    smaller = thawed_copy(model)
    examples = example_images(smaller) if images is None else images
    if depth < 1:
        _remove_blocks(smaller, examples, depth)
    if width < 1:
        graph = channel_graph(smaller)
        blocks = removable(graph.blocks(keep_inputs=False), smaller)
        counts = []
        for block in blocks:
            step = block.step(round_to)
            counts.append(min(block.units, max(1, math.floor(block.units * width / step + 0.5)) * step))
        graph.remove(blocks, best_units(unit_importance(smaller, blocks, examples), counts))
    check_runs(smaller)
    return finished(smaller, model, images)


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
    inputs: dict[str, Tensor] = {}

    def enter(path: str, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            inputs[path] = arguments[0].clone()  # the block may work in place

    def leave(path: str, output: Any) -> None:
        before = inputs.get(path)
        if before is not None and isinstance(output, Tensor) and before.ndim == 4 and before.shape == output.shape:
            changes[path] = float((output - before).norm() / before.norm().clamp_min(1e-12))

    handles = []
    for path, module in model.network.named_modules():
        parts = list(module.modules())
        if path and len(parts) > 2 and any(isinstance(part, _NORMS) for part in parts):
            handles.append(module.register_forward_pre_hook(lambda _, given, path=path: enter(path, given)))
            handles.append(module.register_forward_hook(lambda _, given, output, path=path: leave(path, output)))
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    residual = [path for path in changes if _is_residual(model.network.get_submodule(path), inputs[path])]
    return {path: changes[path] for path in residual if not any(other.startswith(f"{path}.") for other in residual)}


def _is_residual(module: nn.Module, example: Tensor) -> bool:
    """Tell whether a module without parameters returns its input; activations between 0 and 1 are let through."""
    emptied = deepcopy(module).eval()
    probe = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in emptied.parameters():
            parameter.zero_()
        try:
            return torch.equal(emptied(probe), probe)
        except (TypeError, RuntimeError):
            return False


def _remove_blocks(model: SegmentationModel, images: Tensor, share: float) -> None:
    changes = removable_blocks(model, images)
    if not changes:
        raise ModelError(
            f"'{model.description.id}' has no residual block whose input and output agree in shape, so its depth can't "
            "change; make it narrower (width), or prune it"
        )
    removed = len(changes) - math.ceil(share * len(changes))
    if not removed:
        raise ModelError(
            f"depth {share:g} keeps all {len(changes)} residual blocks of '{model.description.id}'; give "
            f"{1 - 1 / len(changes):.2f} or less"
        )
    for path in sorted(changes, key=lambda path: changes[path])[:removed]:
        remove_block(model.network, path)
