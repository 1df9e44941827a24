"""The confusion matrix, from which every score of hard labels comes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import DataError

# Largest number of classes whose joint index (label + 1) * classes + prediction fits one byte.
_LARGEST_FOR_BYTES = 15
# ... and two neighbours can be counted as one number, with counters (72² of 8 bytes) that stay in the first cache.
_LARGEST_FOR_PAIRS = 8
# ... and fits a non-negative 16-bit number.
_LARGEST_FOR_SHORTS = 180


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix; a class that a score isn't defined for is NaN and left out of its mean.

    Attributes:
        iou: (C,) TP / (TP + FP + FN); NaN for classes neither in the truth nor predicted.
        precision: (C,) TP / (TP + FP); NaN for classes never predicted.
        recall: (C,) TP / (TP + FN); NaN for classes not in the truth.
        f1: (C,) 2 TP / (2 TP + FP + FN); NaN for classes neither in the truth nor predicted.
        mean_iou: Mean of ``iou`` over the classes where it is defined.
        mean_accuracy: Mean of ``recall`` over the classes where it is defined.
        accuracy: Share of pixels predicted right.
        frequency_weighted_iou: Mean of ``iou`` weighted by each class's share of the truth.
        kappa: Cohen's kappa, agreement beyond chance (Cohen 1960); NaN when truth and prediction are one same class.
    """

    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    mean_iou: float
    mean_accuracy: float
    accuracy: float
    frequency_weighted_iou: float
    kappa: float

    def to_lists(self) -> dict[str, Any]:
        """Return the scores by name as plain numbers and lists of them."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}


class Confusion:
    """Counts of (true class, predicted class) over any number of images.

    Attributes:
        num_classes: C.
        ignore_index: Label of pixels that don't count.
        matrix: int64 (C, C), ``matrix[true, predicted]``.

    Example:
        >>> confusion = Confusion(2).update(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 255]))
        >>> confusion.matrix.tolist()
        [[1, 1], [0, 1]]
        >>> round(confusion.scores().mean_iou, 3)
        0.5
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        if num_classes < 1:
            raise DataError(f"a confusion matrix needs at least one class, found num_classes={num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: Tensor | NDArray[Any], target: Tensor | NDArray[Any]) -> Confusion:
        """Count the pixels of one or more images; fastest for uint8 and at most 8 classes.

        Args:
            prediction: Class indices, any shape and integer type; may hold anything where ``target`` is ignored.
            target: True class indices of the same shape, ``ignore_index`` where unknown.

        Returns:
            This object.

        Raises:
            DataError: Shapes differ, values aren't integers, or a counted pixel has a value outside 0 … C - 1.
        """
        predicted, true = _as_tensor(prediction, "prediction"), _as_tensor(target, "target")
        if predicted.shape != true.shape:
            raise DataError(
                f"prediction of shape {tuple(predicted.shape)} and target of shape {tuple(true.shape)} differ; "
                "score a prediction at the size of its mask"
            )
        if true.numel():
            joint = self._joint_bytes(predicted, true)
            self._count(self._joint(predicted, true) if joint is None else joint)
        return self

    def merge(self, other: Confusion) -> Confusion:
        """Add the counts of ``other``; return this object.

        Raises:
            DataError: The numbers of classes differ.
        """
        if other.num_classes != self.num_classes:
            raise DataError(f"can't merge confusion matrices of {self.num_classes} and {other.num_classes} classes")
        self.matrix += other.matrix
        return self

    def scores(self) -> Scores:
        """Return the scores of everything counted so far."""
        return scores_of(self.matrix)

    def never_predicted(self) -> list[int]:
        """Return the classes that the truth holds but that were never predicted: the sign of a collapsed model."""
        return np.flatnonzero((self.matrix.sum(axis=1) > 0) & (self.matrix.sum(axis=0) == 0)).tolist()

    def _joint_bytes(self, predicted: Tensor, true: Tensor) -> Tensor | None:
        """Return (label + 1) * C + prediction in bytes, below C where ignored; None if these inputs can't be so."""
        classes = self.num_classes
        both_bytes = predicted.dtype == torch.uint8 and true.dtype == torch.uint8
        if not both_bytes or self.ignore_index != 255 or classes > _LARGEST_FOR_BYTES:
            return None
        low, high = torch.aminmax(true.view(torch.int8))  # 255 reads as -1
        if int(low) < -1 or int(high) >= classes or int(torch.aminmax(predicted)[1]) >= classes:
            return None
        # Sums and products wrap round at 256: (255 + 1) * C is 0.
        return torch.add(predicted, true, alpha=classes).add_(classes)

    def _joint(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Return (label + 1) * C + prediction, below C where ignored, for any input; refuse values out of range."""
        rows = self._rows(true)
        columns = self._columns(predicted, rows)
        return rows.mul_(self.num_classes).add_(columns)

    def _rows(self, true: Tensor) -> Tensor:
        """Return 0 where ignored and class + 1 elsewhere, in the narrowest type that holds the joint index."""
        true = true.to(torch.int16) if true.dtype == torch.uint8 else true
        ignored = true == self.ignore_index
        labels = true.masked_fill(ignored, 0)
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= self.num_classes:
            raise _outside("target", low if low < 0 else high, self.num_classes, self.ignore_index)
        return (labels + 1).masked_fill_(ignored, 0).to(_joint_type(self.num_classes))

    def _columns(self, predicted: Tensor, rows: Tensor) -> Tensor:
        """Return the predicted class, in the type of ``rows``; whatever was predicted where ignored becomes 0."""
        low, high = (int(value) for value in torch.aminmax(predicted))
        if low < 0 or high >= self.num_classes:
            predicted = predicted.masked_fill(rows == 0, 0)
            low, high = (int(value) for value in torch.aminmax(predicted))
        if low < 0 or high >= self.num_classes:
            raise _outside("prediction", low if low < 0 else high, self.num_classes, None)
        return predicted.to(rows.dtype)

    def _count(self, joint: Tensor) -> None:
        """Add the pixels to the matrix; overwrites ``joint``."""
        classes = self.num_classes
        bins = (classes + 1) * classes
        joint = joint.reshape(-1)
        if classes <= _LARGEST_FOR_PAIRS and joint.numel() % 2 == 0:
            # Counting two neighbouring pixels at a time takes half as long; both halves then add up. Read as 16 bits,
            # a pair is high * 256 + low; closing the gap to high * bins + low keeps the counters in the first cache.
            pairs = joint.view(torch.int16)
            closed = pairs.sub_(pairs >> 8, alpha=256 - bins)
            counted = torch.bincount(closed, minlength=bins * bins).view(bins, bins)
            counts = counted.sum(0) + counted.sum(1)
        else:
            counts = torch.bincount(joint, minlength=bins)
        self.matrix += counts.view(classes + 1, classes)[1:].cpu().numpy()


def scores_of(matrix: NDArray[np.int64]) -> Scores:
    """Return the scores of a confusion matrix (C, C) of [true, predicted] counts."""
    counts = matrix.astype(np.float64)
    hits, truth, predicted, total = np.diag(counts), counts.sum(1), counts.sum(0), counts.sum()
    iou = _ratio(hits, truth + predicted - hits)
    recall = _ratio(hits, truth)
    accuracy = _ratio(hits.sum(), total)
    chance = _ratio((truth * predicted).sum(), total**2)
    return Scores(
        iou=iou,
        precision=_ratio(hits, predicted),
        recall=recall,
        f1=_ratio(2 * hits, truth + predicted),
        mean_iou=_mean(iou),
        mean_accuracy=_mean(recall),
        accuracy=float(accuracy),
        frequency_weighted_iou=float(_ratio((truth * np.nan_to_num(iou)).sum(), total)),
        kappa=float(_ratio(accuracy - chance, 1 - chance)),
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


def _ratio(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient: NDArray[np.float64] = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _joint_type(classes: int) -> torch.dtype:
    if classes <= _LARGEST_FOR_BYTES:
        return torch.uint8
    return torch.int16 if classes <= _LARGEST_FOR_SHORTS else torch.int64


def _as_tensor(values: Tensor | NDArray[Any], what: str) -> Tensor:
    """Return an integer tensor torch can calculate with, sharing memory where possible."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "biu":
            raise DataError(f"{what} must hold class indices (integers), found {array.dtype}")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        native = np.require(array.astype(array.dtype.newbyteorder("="), copy=False), requirements=["C", "W"])
        values = torch.from_numpy(native)
    if values.dtype == torch.bool:
        return values.to(torch.uint8)
    if values.dtype.is_floating_point or values.dtype.is_complex:
        raise DataError(f"{what} must hold class indices (integers), found {values.dtype}; take the argmax of logits")
    if values.dtype == torch.uint8 or not values.numel():
        return values
    values = values if values.dtype in (torch.int8, torch.int16, torch.int32) else values.to(torch.int64)
    low, high = (int(value) for value in torch.aminmax(values))
    return values.to(torch.uint8) if low >= 0 and high <= 255 else values


def _outside(what: str, value: int, classes: int, ignore_index: int | None) -> DataError:
    allowed = f"0 to {classes - 1}" + ("" if ignore_index is None else f" or {ignore_index} (ignored)")
    return DataError(f"{what} holds the class index {value}, allowed are {allowed}; check the class list")
