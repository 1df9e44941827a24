"""Scores of a teacher on a few crops: one confusion matrix a crop, so that two treatments can be compared in pairs.

The mean IoU here is over the classes that the crops' labels hold: on a few crops a single pixel of an absent class
would otherwise move it by a whole class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from segshrink.evaluation import Confusion

# Confusion matrices (n, C, C) of [true, predicted] counts, one a crop.
Matrices = NDArray[np.int64]

# Below these shares of the way from the most frequent class everywhere to perfect a teacher is bad, or poor.
BAD_LEVEL, POOR_LEVEL = 0.1, 0.25

_RESAMPLES = 500
# Share of the resamples that a gain's lower bound leaves below it.
_TAIL = 0.025
# Breaks ties in favour of leaving a class where it is.
_STAY = 1e-6


def confusions(logits: Tensor, targets: Tensor) -> Matrices:
    """Return the confusion matrix of each crop, (n, C, C).

    Args:
        logits: (n, C, H, W); NaN counts as the lowest value.
        targets: Class indices (n, H, W), 255 where they don't count.
    """
    classes = logits.shape[1]
    predicted = logits.nan_to_num(nan=-torch.inf, posinf=None, neginf=-torch.inf).argmax(dim=1).to(torch.uint8).cpu()
    labels = targets.to(torch.uint8).cpu()
    pairs = zip(predicted, labels, strict=True)
    return np.stack([Confusion(classes).update(one.contiguous(), true.contiguous()).matrix for one, true in pairs])


def mean_iou(matrices: Matrices) -> float:
    """Return the mean IoU, over the classes that the labels hold, of all crops together; NaN without labels."""
    return float(_scores(matrices.sum(axis=0, keepdims=True).astype(np.float64))[0])


def majority_iou(matrices: Matrices) -> float:
    """Return the mean IoU of an answer that names the most frequent class everywhere."""
    truth = matrices.sum(axis=(0, 2))
    return float(truth.max() / truth.sum() / np.count_nonzero(truth)) if truth.any() else float("nan")


def level(score: float, majority: float) -> float:
    """Return a mean IoU as a share of the way from naming the most frequent class everywhere (0) to perfect (1)."""
    return (score - majority) / max(1 - majority, 1e-9)


def gain(before: Matrices, after: Matrices, *, seed: int = 0) -> tuple[float, float]:
    """Return how much mean IoU the same crops gained, and the lower end of the gain's 95 % bootstrap interval.

    Crops are drawn with replacement, both treatments with the same crops.
    """
    crops = len(before)
    drawn = np.random.default_rng(seed).multinomial(crops, np.full(crops, 1 / crops), size=_RESAMPLES)
    weights = drawn.astype(np.float64)
    differences = _scores(np.tensordot(weights, after, axes=1)) - _scores(np.tensordot(weights, before, axes=1))
    return mean_iou(after) - mean_iou(before), float(np.nanquantile(differences, _TAIL))


def best_order(matrices: Matrices) -> tuple[int, ...]:
    """Return, for each true class, the predicted class that stands for it when the mean IoU is to be highest.

    The IoU of a true class depends on the predicted class that it gets and on no other, so the best order is a linear
    assignment (Kuhn 1955), exact for any number of classes. It says nothing about classes that the labels don't hold:
    all move by one where that does as well. Unless most classes move, those that only change places with absent ones
    stay where they are: one class taken for another is a confusion, not another order.
    """
    counts = matrices.sum(axis=0).astype(np.float64)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    iou = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)
    classes, present = np.arange(len(counts)), counts.sum(axis=1) > 0
    _, columns = linear_sum_assignment(iou + _STAY * np.eye(len(counts)), maximize=True)
    moved = np.count_nonzero(present & (columns != classes))
    if moved < 2 or 2 * moved <= np.count_nonzero(present):
        columns = _seen_cycles(columns, present)
    rolled = max((np.roll(classes, step) for step in (1, -1)), key=lambda order: iou[classes, order].sum())
    as_good = moved > 1 and iou[classes, rolled].sum() >= iou[classes, columns].sum() - _STAY
    return tuple(int(column) for column in (rolled if as_good else columns))


def reordered(matrices: Matrices) -> Matrices:
    """Return what each crop's matrix is in the class order that is best for all the other crops.

    An order that was chosen and scored on the same crops would always look better than it is.
    """
    total = matrices.sum(axis=0)
    return np.stack([one[:, list(best_order((total - one)[None]))] for one in matrices])


def _seen_cycles(order: NDArray[np.intp], present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return an order without the cycles in which fewer than two classes are present."""
    result = np.arange(len(order))
    for start in range(len(order)):
        cycle = [start]
        while order[cycle[-1]] != start:
            cycle.append(int(order[cycle[-1]]))
        if present[cycle].sum() > 1:
            result[start] = order[start]
    return result


def _scores(sums: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU (n,) of matrices (n, C, C), over the classes that their labels hold."""
    hits, truth = np.diagonal(sums, axis1=1, axis2=2), sums.sum(axis=2)
    union = truth + sums.sum(axis=1) - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=truth > 0)
    present = np.count_nonzero(truth > 0, axis=1)
    result: NDArray[np.float64] = np.full(len(sums), np.nan)
    np.divide(iou.sum(axis=1), present, out=result, where=present > 0)
    return result
