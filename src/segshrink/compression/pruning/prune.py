"""Pruning: the channels that matter least, over the whole network, go until a target is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segshrink.compression.pruning.batch_norm import reestimate_statistics
from segshrink.compression.pruning.smaller_copy import check_runs, cut, restructured
from segshrink.compression.pruning.channels import Axis, Block, Numbers, find_blocks, input_layers
from segshrink.compression.pruning.costs import mac_cost, parameter_cost
from segshrink.compression.pruning.importance import Scores, example_images, unit_importance
from segshrink.errors import ModelError
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
    logits keep their outputs; every other layer keeps a tenth of its channels. What goes, goes without training: distil
    the copy from the original afterwards.

    Args:
        model: The model; it isn't changed.
        ratio: Share of the channels that may go which is to go, in (0, 1).
        macs: Multiply-accumulates for an image of ``size`` × ``size`` pixels that may remain.
        parameters: Parameters that may remain.
        steps: In how many steps.
        round_to: Layers that change keep a multiple of so many channels.
        size: Side in pixels of the image for ``macs``.
        images: Raw pixels (N, bands, H, W) of the kind that the model is for: its logits for them should change least,
            and running averages are taken over them anew. None: blots with the mean and deviation that it knows.
        progress: Called after every step with (steps done, steps in all).

    Raises:
        ModelError: Not exactly one target, one that is reached already or can't be; a network whose layers can't be
            followed; a layer that doesn't follow when others lose channels.
        MissingExtraError: Torch-Pruning isn't installed.
    """
    goal = _Goal.of(ratio=ratio, macs=macs, parameters=parameters, size=size)
    if steps < 1 or round_to < 1:
        raise ModelError(f"steps and round_to must be at least 1, found {steps} and {round_to}")
    smaller = thawed_copy(model)
    seen = example_images(smaller) if images is None else images
    floors: dict[frozenset[Axis], int] = {}
    first = target = 0.0
    for step in range(steps):
        blocks = prunable_blocks(smaller)
        for block in blocks:
            floors.setdefault(block.key, max(1, round(LEAST * block.units)))
        cost, saved = goal.cost(smaller, blocks)
        whole = cost([block.units for block in blocks])
        if step == 0:
            first, target = whole, goal.checked(whole)
        scores = unit_importance(smaller, blocks, seen, seed=step)
        ranked = [score / max(saving, 1e-12) for score, saving in zip(scores, saved, strict=True)]
        least = [_rounded_up(floors[block.key], block, round_to) for block in blocks]
        # An equal part of what is to go in each step.
        allowed = target if step + 1 == steps else whole - (whole - target) / (steps - step)
        numbers = _chosen(blocks, ranked, least, cost, allowed, round_to)
        if step + 1 == steps and (reached := cost(numbers)) > target:
            raise ModelError(goal.missed(reached, whole=first))
        cut(smaller.network, blocks, best_units(scores, numbers))
        check_runs(smaller)
        if progress is not None:
            progress(step + 1, steps)
    return finished(smaller, model, images)


def thawed_copy(model: SegmentationModel) -> SegmentationModel:
    """Return a copy on the CPU whose weights all take gradients.

    Raises:
        ModelError: Channels of such a network can't be removed.
    """
    if model.description.id.startswith("hf:"):
        raise ModelError(
            f"'{model.description.id}' is a network of transformers, whose layers can't be made smaller one by one; "
            "distil it into another network"
        )
    copied = deepcopy(model).to("cpu").requires_grad_()
    return copied.eval()


def prunable_blocks(model: SegmentationModel, *, keep_inputs: bool = True) -> list[Block]:
    """Return the blocks of a model that may lose channels.

    Args:
        model: The model.
        keep_inputs: Whether the layers that are given the image keep their outputs.
    """
    side = max(64, 2 * model.description.stride)
    image = torch.zeros(1, model.description.bands, side, side)
    keep = input_layers(model.network, image) if keep_inputs else []
    blocks = [block for block in find_blocks(model.network, image, keep=keep) if not block.fixed]
    if not blocks:
        raise ModelError(f"'{model.description.id}' has no layer that could lose channels; distil it instead")
    return blocks


def best_units(scores: Sequence[Scores], numbers: Sequence[int]) -> list[Numbers]:
    """Return, of each block, so many units with the highest scores, in their order."""
    return [np.sort(np.argsort(-score, kind="stable")[:number]) for score, number in zip(scores, numbers, strict=True)]


def finished(smaller: SegmentationModel, original: SegmentationModel, images: Tensor | None) -> SegmentationModel:
    """Return a model that was made smaller with its description and running averages, where and as the original is."""
    if images is not None:
        reestimate_statistics(smaller, images)
    weight = next(original.parameters())
    return restructured(smaller).to(weight.device).train(original.training)


@dataclass(frozen=True)
class _Goal:
    """What is to remain: of which measure how much; of "ratio", how much is to go."""

    measure: str
    amount: float
    size: int

    @classmethod
    def of(cls, *, ratio: float | None, macs: float | None, parameters: float | None, size: int) -> _Goal:
        given = {
            name: value
            for name, value in (("ratio", ratio), ("macs", macs), ("parameters", parameters))
            if value is not None
        }
        if len(given) != 1:
            raise ModelError(f"give one of ratio, macs and parameters, found {', '.join(given) or 'none'}")
        ((measure, amount),) = given.items()
        if measure == "ratio" and not 0 < amount < 1:
            raise ModelError(f"ratio is the share of channels to remove, between 0 and 1, found {amount}")
        return cls(measure, amount, size)

    def cost(
        self, model: SegmentationModel, blocks: Sequence[Block]
    ) -> tuple[Callable[[Sequence[int]], float], list[float]]:
        """Return what a model costs by the units kept of each block, and what one unit of each saves."""
        if self.measure == "ratio":
            return lambda kept: float(sum(kept)), [1.0] * len(blocks)
        cost = mac_cost(model, size=self.size) if self.measure == "macs" else parameter_cost(model, blocks)
        return lambda kept: cost.of(blocks, kept), cost.saved_by_unit(blocks)

    def checked(self, whole: float) -> float:
        """Return what may remain of ``whole``."""
        if self.measure == "ratio":
            return whole * (1 - self.amount)
        if self.amount >= whole:
            raise ModelError(f"the model has {whole:,.0f} {self._unit} already, no more than {self.amount:,.0f}")
        return self.amount

    def missed(self, reached: float, *, whole: float) -> str:
        """Say what was reached instead."""
        kept = "a tenth of each layer, what makes the logits and what is given the image stay"
        if self.measure == "ratio":
            return f"{self.amount:.1%} of the channels can't go: at most {1 - reached / whole:.1%} can ({kept})"
        return (
            f"{self.amount:,.0f} {self._unit} can't be reached: {reached:,.0f} is the nearest ({kept}); ask for that, "
            "or distil a smaller network"
        )

    @property
    def _unit(self) -> str:
        return "parameters" if self.measure == "parameters" else f"multiply-accumulates at {self.size} pixels"


def _chosen(
    blocks: Sequence[Block],
    ranked: Sequence[Scores],
    least: Sequence[int],
    cost: Callable[[Sequence[int]], float],
    allowed: float,
    round_to: int,
) -> list[int]:
    """Return how many units of each block stay so that the cost is no more than allowed, or as little as it gets."""
    owners = np.concatenate([np.full(block.units, number) for number, block in enumerate(blocks)])
    order = owners[np.argsort(np.concatenate(ranked), kind="stable")]

    def kept(gone: int) -> list[int]:
        lost = np.bincount(order[:gone], minlength=len(blocks))
        return [
            max(_rounded_up(block.units - int(count), block, round_to), floor)
            for block, count, floor in zip(blocks, lost, least, strict=True)
        ]

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(kept(middle)) <= allowed else (middle + 1, high)
    numbers = kept(low)
    # The last multiple may have saved more than was needed: what still fits comes back, the most important first.
    for number in order[::-1]:
        more = _rounded_up(numbers[number] + 1, blocks[number], round_to)
        if more > numbers[number] and cost([*numbers[:number], more, *numbers[number + 1 :]]) <= allowed:
            numbers[number] = more
    return numbers


def _rounded_up(units: int, block: Block, round_to: int) -> int:
    """Round up to what a block may keep."""
    step = block.step(round_to)
    return min(block.units, max(step, -(-units // step) * step))
