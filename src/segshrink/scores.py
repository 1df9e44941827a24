"""Scores of a confusion matrix, and the areas of classes that follow from one; without torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix; a class that a score isn't defined for is NaN and left out of its mean.

    The macro and weighted means are those of scikit-learn's ``classification_report``: over the classes that the truth
    holds or that were predicted, an undefined precision or recall counting as 0, weighted by ``support``.

    Attributes:
        iou: (C,) TP / (TP + FP + FN); NaN for classes neither in the truth nor predicted.
        precision: (C,) TP / (TP + FP), the user's accuracy; NaN for classes never predicted.
        recall: (C,) TP / (TP + FN), the producer's accuracy; NaN for classes not in the truth.
        f1: (C,) 2 TP / (2 TP + FP + FN); NaN for classes neither in the truth nor predicted.
        support: (C,) true pixels.
        mean_iou: Mean of ``iou`` over the classes where it is defined.
        mean_accuracy: Mean of ``recall`` over the classes where it is defined.
        accuracy: Share of pixels predicted right: the overall accuracy.
        frequency_weighted_iou: Mean of ``iou`` weighted by each class's share of the truth.
        kappa: Cohen's kappa, agreement beyond chance (Cohen 1960); NaN when truth and prediction are one same class.
        macro_precision: Mean of ``precision``.
        macro_recall: Mean of ``recall``.
        macro_f1: Mean of ``f1``.
        weighted_precision: Mean of ``precision`` weighted by ``support``.
        weighted_recall: Mean of ``recall`` weighted by ``support``.
        weighted_f1: Mean of ``f1`` weighted by ``support``.
    """

    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    mean_iou: float
    mean_accuracy: float
    accuracy: float
    frequency_weighted_iou: float
    kappa: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float

    def to_lists(self) -> dict[str, Any]:
        """Return the scores by name as plain numbers and lists of them."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}


def scores_of(matrix: NDArray[np.int64]) -> Scores:
    """Return the scores of a confusion matrix (C, C) of [true, predicted] counts."""
    counts = matrix.astype(np.float64)
    hits, truth, predicted, total = np.diag(counts), counts.sum(1), counts.sum(0), counts.sum()
    iou = _ratio(hits, truth + predicted - hits)
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, truth), _ratio(2 * hits, truth + predicted)
    macro, weighted = (
        [float(_ratio((weights * np.nan_to_num(values)).sum(), weights.sum())) for values in (precision, recall, f1)]
        for weights in (truth + predicted > 0, truth)
    )
    accuracy = _ratio(hits.sum(), total)
    chance = _ratio((truth * predicted).sum(), total**2)
    return Scores(
        iou=iou,
        precision=precision,
        recall=recall,
        f1=f1,
        support=matrix.sum(axis=1),
        mean_iou=_mean(iou),
        mean_accuracy=_mean(recall),
        accuracy=float(accuracy),
        frequency_weighted_iou=float(_ratio((truth * np.nan_to_num(iou)).sum(), total)),
        kappa=float(_ratio(accuracy - chance, 1 - chance)),
        macro_precision=macro[0],
        macro_recall=macro[1],
        macro_f1=macro[2],
        weighted_precision=weighted[0],
        weighted_recall=weighted[1],
        weighted_f1=weighted[2],
    )


def marginals(matrices: NDArray[Any]) -> NDArray[Any]:
    """Return the true, the predicted and the rightly predicted pixels of each class, (..., 3, C), of (..., C, C)."""
    return np.stack([matrices.sum(-1), matrices.sum(-2), np.diagonal(matrices, axis1=-2, axis2=-1)], axis=-2)


def mean_iou_of_marginals(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mIoU, shape (...), from what ``marginals`` gave, (..., 3, C); classes without a pixel are left out."""
    true, predicted, hits = np.moveaxis(counts, -2, 0)
    iou = _ratio(hits, true + predicted - hits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN
        return np.asarray(np.nanmean(iou, axis=-1))


def error_adjusted_areas(confusion: ArrayLike, mapped: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the area of each class, corrected by a map's errors, and its standard error.

    The stratified estimators of Olofsson et al. (2014), "Good practices for estimating area and assessing accuracy of
    land change", equations 9 to 11: the strata are the map's classes, the sample was drawn from them at random. Counts
    of neighboring pixels are no such sample: they depend on each other, and the standard errors come out far too
    small. Twice the standard error (1.96 times) is half a 95 % interval.

    Args:
        confusion: (..., C, C) counts of sampled places, [true, mapped].
        mapped: (C,) area that the map gives each class, in any unit.

    Returns:
        Areas and standard errors, each (..., C), in the unit of ``mapped``; NaN where a mapped class was not sampled.

    Example:
        >>> areas, errors = error_adjusted_areas([[45, 5], [5, 45]], [100.0, 300.0])
        >>> areas.tolist()
        [120.0, 280.0]
        >>> errors.round(1).tolist()
        [13.6, 13.6]
    """
    counts, area = np.asarray(confusion, dtype=np.float64), np.asarray(mapped, dtype=np.float64)
    sampled = counts.sum(axis=-2, keepdims=True)
    shares = _ratio(counts, sampled)  # of each mapped class, what it truly is
    variances = _ratio(shares * (1 - shares), sampled - 1)
    used = area > 0  # a class that the map doesn't hold needs no sample
    areas = (area * shares)[..., used].sum(axis=-1)
    return areas, np.sqrt((area**2 * variances)[..., used].sum(axis=-1))


def _ratio(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient: NDArray[np.float64] = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
