"""The confusion matrix, from which every score of hard labels comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import DataError
from segshrink.scores import Scores, scores_of

if TYPE_CHECKING:
    from torch import Tensor

# Pixels that are worked on together: what is held of them stays in the processor's cache.
_PIXELS_AT_ONCE = 1 << 16
# Largest number of classes whose joint index (label + 1) * classes + prediction fits one byte.
_LARGEST_FOR_BYTES = 15
# ... and two neighbors can be counted as one number, with counters (72² of 8 bytes) that stay in the first cache.
_LARGEST_FOR_PAIRS = 8


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
        predicted, true = _as_integers(prediction, "prediction"), _as_integers(target, "target")
        if predicted.shape != true.shape:
            raise DataError(
                f"prediction of shape {predicted.shape} and target of shape {true.shape} differ; "
                "score a prediction at the size of its mask"
            )
        predicted, true = predicted.reshape(-1), true.reshape(-1)
        counts = np.zeros_like(self.matrix)
        for start in range(0, true.size, _PIXELS_AT_ONCE):
            parts = [values[start : start + _PIXELS_AT_ONCE] for values in (predicted, true)]
            joint = self._joint_bytes(*parts)
            counts += self._counted(self._joint(*parts) if joint is None else joint)
        self.matrix += counts
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

    def _joint_bytes(self, predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[Any] | None:
        """Return (label + 1) * C + prediction in bytes, below C where ignored; None if these inputs can't be so."""
        classes = self.num_classes
        both_bytes = predicted.dtype == np.uint8 and true.dtype == np.uint8
        if not both_bytes or self.ignore_index != 255 or classes > _LARGEST_FOR_BYTES:
            return None
        labels = true.view(np.int8)  # 255 reads as -1
        if labels.min() < -1 or labels.max() >= classes or predicted.max() >= classes:
            return None
        # Sums and products wrap round at 256: (255 + 1) * C is 0.
        joint = true * np.uint8(classes)
        joint += predicted
        joint += np.uint8(classes)
        return joint

    def _joint(self, predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
        """Return (label + 1) * C + prediction, below C where ignored, for any input; refuse values out of range."""
        ignored = true == self.ignore_index
        labels, found = (np.where(ignored, 0, values).astype(np.int64) for values in (true, predicted))
        for what, values, ignore in (("target", labels, self.ignore_index), ("prediction", found, None)):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= self.num_classes:
                raise _outside(what, low if low < 0 else high, self.num_classes, ignore)
        return np.where(ignored, 0, labels + 1) * self.num_classes + found

    def _counted(self, joint: NDArray[Any]) -> NDArray[np.int64]:
        """Return the pixels by true and predicted class (C, C); overwrites ``joint``."""
        classes = self.num_classes
        bins = (classes + 1) * classes
        if joint.dtype == np.uint8 and classes <= _LARGEST_FOR_PAIRS and joint.size % 2 == 0:
            # Counting two neighboring pixels at a time takes half as long; both halves then add up. Read as 16 bits,
            # a pair is high * 256 + low; closing the gap to high * bins + low keeps the counters in the first cache.
            pairs = joint.view(np.int16)
            pairs -= (pairs >> 8) * np.int16(256 - bins)
            counted = np.bincount(pairs, minlength=bins * bins).reshape(bins, bins)
            counts = counted.sum(axis=0) + counted.sum(axis=1)
        else:
            counts = np.bincount(joint, minlength=bins)
        by_class: NDArray[np.int64] = counts.reshape(classes + 1, classes)[1:]
        return by_class


def _as_integers(values: Tensor | NDArray[Any], what: str) -> NDArray[Any]:
    """Return an array of integers in this machine's byte order, in memory order."""
    if not isinstance(values, np.ndarray) and hasattr(values, "detach"):
        if values.is_floating_point() or values.is_complex():
            raise DataError(
                f"{what} must hold class indices (integers), found {values.dtype}; take the argmax of logits"
            )
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise DataError(f"{what} must hold class indices (integers), found {array.dtype}")
    dtype = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, dtype)


def _outside(what: str, value: int, classes: int, ignore_index: int | None) -> DataError:
    allowed = f"0 to {classes - 1}" + ("" if ignore_index is None else f" or {ignore_index} (ignored)")
    return DataError(f"{what} holds the class index {value}, allowed are {allowed}; check the class list")
