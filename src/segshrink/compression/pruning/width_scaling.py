"""A smaller copy of a network: narrower with the channels that matter most, shallower without some residual blocks."""

from __future__ import annotations

import math

from torch import Tensor

from segshrink.compression.pruning.smaller_copy import check_runs, cut
from segshrink.compression.pruning.importance import example_images, unit_importance
from segshrink.compression.pruning.prune import best_units, finished, prunable_blocks, thawed_copy
from segshrink.compression.pruning.residual import removable_blocks
from segshrink.errors import ModelError
from segshrink.models import SegmentationModel
from segshrink.models.structure import remove_block


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
        round_to: Layers keep the nearest multiple of so many channels, at least one.
        images: Raw pixels (N, bands, H, W) of the kind that the model is for: they say what matters, and running
            averages are taken over them anew. None: blots with the mean and deviation that it knows.

    Raises:
        ModelError: A share out of range, or both 1; no such residual blocks; a network whose layers can't be followed;
            a layer that doesn't follow when others lose channels.
        MissingExtraError: Torch-Pruning isn't installed.
    """
    for name, share in (("width", width), ("depth", depth)):
        if not 0 < share <= 1:
            raise ModelError(f"{name} is the share that stays, above 0 and at most 1, found {share}")
    if width == depth == 1:
        raise ModelError("width and depth are both 1, which changes nothing; make one of them smaller")
    smaller = thawed_copy(model)
    seen = example_images(smaller) if images is None else images
    if depth < 1:
        _remove_blocks(smaller, seen, depth)
    if width < 1:
        blocks = prunable_blocks(smaller, keep_inputs=False)
        numbers = []
        for block in blocks:
            step = block.step(round_to)
            numbers.append(min(block.units, max(1, math.floor(block.units * width / step + 0.5)) * step))
        cut(smaller.network, blocks, best_units(unit_importance(smaller, blocks, seen), numbers))
    check_runs(smaller)
    return finished(smaller, model, images)


def _remove_blocks(model: SegmentationModel, images: Tensor, share: float) -> None:
    changes = removable_blocks(model, images)
    if not changes:
        raise ModelError(
            f"'{model.description.id}' has no residual block whose input and output agree in shape, so its depth can't "
            "change; make it narrower (width), or prune it"
        )
    leave = len(changes) - math.ceil(share * len(changes))
    if not leave:
        raise ModelError(
            f"depth {share:g} keeps all {len(changes)} residual blocks of '{model.description.id}'; give "
            f"{1 - 1 / len(changes):.2f} or less"
        )
    for path in sorted(changes, key=lambda path: changes[path])[:leave]:
        remove_block(model.network, path)
