"""Precision-recall curves of each class against the rest, from probabilities streamed into histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import DataError
from segshrink.evaluation_records import CurveRecord

if TYPE_CHECKING:
    from torch import Tensor

MAXIMUM_POINTS = 200

# A probability p falls into a bin by the leading bits (sign, exponent, 8 of the mantissa) of the float32 p below 1/2
# and of 1 - p above: each halving of the distance from 0 or 1 is cut into 256 equal bins. Ranks are so kept where
# confident networks put nearly all pixels. 1 - p is 0 or at least 2^-24 in float32; p goes down to 0.
_MANTISSA_BITS = 8
_SHIFT = 23 - _MANTISSA_BITS
_MIDDLE = 126 << _MANTISSA_BITS
BINS = 2 * _MIDDLE - (103 << _MANTISSA_BITS) + 2


class ProbabilityHistograms:
    """Histograms of each class's probability, apart for pixels of the class and of the rest.

    Memory doesn't grow with the number of images. Average precision from the bins differs from that of the exact
    probabilities by less than 1e-3, unless nearly all probabilities are alike.

    Attributes:
        counts: int64 (C, BINS, 2): pixels by class, bin of its probability, and whether the pixel is of the class.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: NDArray[np.int64] = np.zeros((num_classes, BINS, 2), np.int64)

    def update(self, probabilities: Tensor | NDArray[np.float32], target: Tensor | NDArray[Any]) -> None:
        """Count the pixels of one image.

        Args:
            probabilities: (C, H, W) in [0, 1].
            target: (H, W) class indices, ``ignore_index`` where unknown.

        Raises:
            DataError: Shapes contradict each other, or a probability is NaN.
        """
        values, labels = as_image(probabilities, target, num_classes=self.num_classes)
        ignored = labels == self.ignore_index
        for position in range(self.num_classes):
            joint = 2 * _bins(values[position]) + (labels == position)
            joint[ignored] = 2 * BINS
            counted = np.bincount(joint.reshape(-1), minlength=2 * BINS + 1)
            self.counts[position] += counted[:-1].reshape(BINS, 2)

    def merge(self, other: ProbabilityHistograms) -> ProbabilityHistograms:
        """Add the counts of ``other``; return this object."""
        self.counts += other.counts
        return self

    def curves(self, names: tuple[str, ...] | None = None) -> tuple[CurveRecord, ...]:
        """Return one curve per class.

        Args:
            names: C class names; None numbers them.
        """
        names = names or tuple(str(position) for position in range(self.num_classes))
        return tuple(_curve(name, counts) for name, counts in zip(names, self.counts, strict=True))

    def pooled_curve(self) -> CurveRecord:
        """Return the curve of all (pixel, class) pairs together: scikit-learn's micro average."""
        return _curve("all classes", self.counts.sum(axis=0))


def as_image(
    probabilities: Tensor | NDArray[np.float32], target: Tensor | NDArray[Any], *, num_classes: int
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return probabilities as float32 (C, H, W) and labels (H, W) as arrays.

    Raises:
        DataError: Shapes contradict each other, or a probability is NaN.
    """
    values, labels = as_array(probabilities).astype(np.float32, copy=False), as_array(target)
    if values.ndim != 3 or values.shape[0] != num_classes or values.shape[1:] != labels.shape:
        raise DataError(
            f"probabilities of shape {values.shape} and a mask of shape {labels.shape} don't fit; "
            f"expected ({num_classes}, height, width) and (height, width)"
        )
    if np.isnan(values.sum()):
        raise DataError("the predicted probabilities hold NaN; train again with a lower learning rate")
    return values, labels


def as_array(values: Tensor | NDArray[Any]) -> NDArray[Any]:
    """Return an array of a tensor's or an array's values."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _bins(probability: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the bin of each probability, from 0 to BINS - 1, never falling with the probability."""
    code = np.minimum(probability, 1 - probability).view(np.int32) >> _SHIFT
    return np.where(probability < 0.5, code, 2 * _MIDDLE - code).clip(0, BINS - 1)


def _curve(name: str, counts: NDArray[np.int64]) -> CurveRecord:
    used = counts[counts.sum(axis=1) > 0][::-1].astype(np.float64)
    positives = used[:, 1].sum()
    if positives == 0:
        return CurveRecord(name=name)
    hits = np.cumsum(used[:, 1])
    precision, recall = hits / np.cumsum(used.sum(axis=1)), hits / positives
    average_precision = float(np.sum(np.diff(recall, prepend=0) * precision))
    kept = _spread(precision, recall)
    points = {"precision": precision[kept].tolist(), "recall": recall[kept].tolist()}
    return CurveRecord(name=name, average_precision=average_precision, **points)


def _spread(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return at most MAXIMUM_POINTS positions, evenly spaced along the drawn curve, first and last among them."""
    if precision.size <= MAXIMUM_POINTS:
        return np.arange(precision.size)
    steps = np.abs(np.diff(precision, prepend=precision[0])) + np.abs(np.diff(recall, prepend=recall[0]))
    length = np.cumsum(steps)
    wanted = np.linspace(0, length[-1], MAXIMUM_POINTS - 1)
    found = np.searchsorted(length, wanted).clip(max=precision.size - 1)
    return np.unique(np.append(found, precision.size - 1))
