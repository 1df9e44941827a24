"""Pruning: the channels that matter least, over the whole network, go until a target is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from segshrink.compression.pruning.channels import Axis, Block, Numbers
from segshrink.compression.pruning.costs import Cost, cost_of
from segshrink.compression.pruning.importance import Scores, example_images, unit_importance
from segshrink.compression.pruning.smaller_copy import channel_graph, check_runs, finished, thawed_copy
from segshrink.errors import ModelError, UsageError
from segshrink.models import SegmentationModel

# Share of its channels that a layer keeps at least.
LEAST = 0.1
Advance = Callable[[int, int], None]


def prune(
    model: SegmentationModel,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    steps: int = 5,
    round_to: int = 8,
    size: int = 256,
    images: Tensor | None = None,
    progress: Advance | None = None,
) -> SegmentationModel:
    """Return a smaller copy of a model without the channels that change its logits least.

    Channels that depend on each other go together. All are ranked over the whole network, by the change of the logits
    for what removing them saves, anew after each step. The layers that are given the image and those that make the
    logits keep their outputs; every other layer keeps a tenth of its channels. Nothing is trained: distill the copy
    from the original afterwards.

    Args:
        model: The model; it isn't changed.
        ratio: Share of the removable channels to remove, in (0, 1).
        macs: Multiply-accumulates for an image of ``size`` × ``size`` pixels that may remain.
        parameters: Parameters that may remain.
        steps: Number of pruning steps.
        round_to: Layers that change keep a multiple of this many channels.
        size: Side in pixels of the image for ``macs``.
        images: Raw pixels (N, bands, H, W) of the kind that the model is for: its logits for them should change least,
            and running averages are taken over them anew. If None, random blobs with the mean and deviation that the
            model normalizes with say what matters.
        progress: Called after every step with (steps done, steps in all).

    Raises:
        UsageError: Not exactly one target, or a number out of range.
        ModelError: A target that is reached already or can't be; a network whose layers can't be followed; a layer that
            doesn't follow when others lose channels.
        MissingExtraError: Torch-Pruning isn't installed.
    """
    measure, amount = _goal(ratio=ratio, macs=macs, parameters=parameters)
    if steps < 1 or round_to < 1:
        raise UsageError(f"steps and round_to must be at least 1, found {steps} and {round_to}")
    smaller = thawed_copy(model)
    examples = example_images(smaller) if images is None else images
    floors: dict[frozenset[Axis], int] = {}
    original = target = 0.0
    for step in range(steps):
        graph = channel_graph(smaller)
        blocks = removable(graph.blocks(keep_inputs=True), smaller)
        for block in blocks:
            floors.setdefault(block.key, max(1, round(LEAST * block.units)))
        cost = cost_of(smaller, blocks, measure, size=size)
        present = cost.of(blocks, [block.units for block in blocks])
        if step == 0:
            original, target = present, _target(measure, amount, present, size=size)
        scores = unit_importance(smaller, blocks, examples, seed=step)
        ranked = [score / max(saving, 1e-12) for score, saving in zip(scores, cost.saved_by_unit(blocks), strict=True)]
        least = [_rounded_up(floors[block.key], block, round_to) for block in blocks]
        # An equal part of what is to go in each step.
        allowed = target if step + 1 == steps else present - (present - target) / (steps - step)
        counts = _chosen(blocks, ranked, least, cost, allowed, round_to)
        if step + 1 == steps and (reached := cost.of(blocks, counts)) > target:
            raise _out_of_reach(measure, amount, reached=reached, original=original, size=size)
        graph.remove(blocks, best_units(scores, counts))
        check_runs(smaller)
        if progress is not None:
            progress(step + 1, steps)
    return finished(smaller, model, images)


def removable(blocks: Sequence[Block], model: SegmentationModel) -> list[Block]:
    """Return the blocks that may lose channels; raises ``ModelError`` where there is none."""
    free = [block for block in blocks if not block.fixed]
    if not free:
        raise ModelError(f"'{model.description.id}' has no layer that could lose channels; distill it instead")
    return free


def best_units(scores: Sequence[Scores], counts: Sequence[int]) -> list[Numbers]:
    """Return, of each block, this many units with the highest scores, in their order."""
    return [np.sort(np.argsort(-score, kind="stable")[:count]) for score, count in zip(scores, counts, strict=True)]


def _goal(*, ratio: float | None, macs: float | None, parameters: float | None) -> tuple[str, float]:
    """Return the one measure that is given, as ``cost_of`` names it, and its amount."""
    targets = {"channels": ratio, "macs": macs, "parameters": parameters}
    chosen = {measure: amount for measure, amount in targets.items() if amount is not None}
    if len(chosen) != 1:
        names = ", ".join(chosen).replace("channels", "ratio")
        raise UsageError(f"give one of ratio, macs and parameters, found {names or 'none'}")
    ((measure, amount),) = chosen.items()
    if measure == "channels" and not 0 < amount < 1:
        raise UsageError(f"ratio is the share of channels to remove, between 0 and 1, found {amount}")
    return measure, amount


def _target(measure: str, amount: float, present: float, *, size: int) -> float:
    """Return what may remain of a model's present cost."""
    if measure == "channels":
        return present * (1 - amount)
    if amount >= present:
        raise ModelError(f"the model has {present:,.0f} {_title(measure, size)} already, no more than {amount:,.0f}")
    return amount


def _out_of_reach(measure: str, amount: float, *, reached: float, original: float, size: int) -> ModelError:
    """Return the error that says what can be reached instead."""
    kept = "a tenth of each layer, what makes the logits and what is given the image stay"
    if measure == "channels":
        return ModelError(
            f"{amount:.1%} of the channels can't go: at most {1 - reached / original:.1%} can ({kept}); ask for that, "
            "or distill a smaller network"
        )
    return ModelError(
        f"{amount:,.0f} {_title(measure, size)} can't be reached: {reached:,.0f} is the nearest ({kept}); ask for "
        "that, or distill a smaller network"
    )


def _title(measure: str, size: int) -> str:
    return measure if measure == "parameters" else f"multiply-accumulates at {size} pixels"


def _chosen(
    blocks: Sequence[Block],
    ranked: Sequence[Scores],
    least: Sequence[int],
    cost: Cost,
    allowed: float,
    round_to: int,
) -> list[int]:
    """Return how many units of each block stay so that the cost is no more than allowed, or as little as it gets."""
    owners = np.concatenate([np.full(block.units, number) for number, block in enumerate(blocks)])
    order = owners[np.argsort(np.concatenate(ranked), kind="stable")]

    def kept(removed: int) -> list[int]:
        lost = np.bincount(order[:removed], minlength=len(blocks))
        return [
            max(_rounded_up(block.units - int(count), block, round_to), floor)
            for block, count, floor in zip(blocks, lost, least, strict=True)
        ]

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost.of(blocks, kept(middle)) <= allowed else (middle + 1, high)
    counts = kept(low)
    # The last multiple may have saved more than was needed: what still fits comes back, the most important first.
    for number in order[::-1]:
        more = _rounded_up(counts[number] + 1, blocks[number], round_to)
        if more > counts[number] and cost.of(blocks, [*counts[:number], more, *counts[number + 1 :]]) <= allowed:
            counts[number] = more
    return counts


def _rounded_up(units: int, block: Block, round_to: int) -> int:
    """Round up to what a block may keep."""
    step = block.step(round_to)
    return min(block.units, max(step, -(-units // step) * step))
