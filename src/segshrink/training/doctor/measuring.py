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
    assignment (Kuhn 1955), exact for any number of classes. Classes that only change places with classes that the
    labels don't hold stay where they are: one class taken for another is a confusion, not another order.
    """
    counts = matrices.sum(axis=0).astype(np.float64)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    iou = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)
    _, columns = linear_sum_assignment(iou + _STAY * np.eye(len(counts)), maximize=True)
    return _seen_cycles(tuple(int(column) for column in columns), counts.sum(axis=1) > 0)


def reordered(matrices: Matrices) -> Matrices:
    """Return what the crops' matrices are in the best class order, found on the other half of the crops.

    An order that was chosen and scored on the same crops would always look better than it is.
    """
    if len(matrices) < 2:
        return matrices
    result = np.empty_like(matrices)
    for half in (0, 1):
        result[half::2] = matrices[half::2][:, :, list(best_order(matrices[1 - half :: 2]))]
    return result


def _seen_cycles(order: tuple[int, ...], present: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return an order without the cycles in which fewer than two classes are present."""
    result = list(range(len(order)))
    for start in range(len(order)):
        cycle = [start]
        while order[cycle[-1]] != start:
            cycle.append(order[cycle[-1]])
        if sum(bool(present[index]) for index in cycle) > 1:
            result[start] = order[start]
    return tuple(result)


def _scores(sums: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU (n,) of matrices (n, C, C), over the classes that their labels hold."""
    hits, truth = np.diagonal(sums, axis1=1, axis2=2), sums.sum(axis=2)
    union = truth + sums.sum(axis=1) - hits
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=truth > 0)
    present = np.count_nonzero(truth > 0, axis=1)
    result: NDArray[np.float64] = np.full(len(sums), np.nan)
    np.divide(iou.sum(axis=1), present, out=result, where=present > 0)
    return result
