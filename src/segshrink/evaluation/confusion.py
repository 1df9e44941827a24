"""The confusion matrix, from which every score of hard labels comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import DataError
from segshrink.scores import Scores, scores_of

# Largest number of classes whose joint index (label + 1) * classes + prediction fits one byte.
_LARGEST_FOR_BYTES = 15
# ... and two neighbours can be counted as one number, with counters (72² of 8 bytes) that stay in the first cache.
_LARGEST_FOR_PAIRS = 8
# ... and fits a non-negative 16-bit number.
_LARGEST_FOR_SHORTS = 180


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
