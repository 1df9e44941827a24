"""Calibration: does a confidence of 80 % mean that 80 % of such pixels are right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.evaluation.curves import as_array, as_image
from segshrink.evaluation_records import CalibrationBin, CalibrationRecord

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_BINS = 15


class CalibrationHistogram:
    """Streams pixels into bins of equal width by confidence, the highest probability of a pixel."""

    def __init__(self, num_classes: int, *, bins: int = DEFAULT_BINS, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.count: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.confidence_sum: NDArray[np.float64] = np.zeros(bins)
        self.right: NDArray[np.int64] = np.zeros(bins, np.int64)

    def update(
        self,
        probabilities: Tensor | NDArray[np.float32],
        target: Tensor | NDArray[Any],
        *,
        prediction: Tensor | NDArray[Any] | None = None,
    ) -> None:
        """Count the pixels of one image.

        Args:
            probabilities: (C, H, W) in [0, 1].
            target: (H, W) class indices, ``ignore_index`` where unknown.
            prediction: (H, W) most probable class where it is known already; None: found here.

        Raises:
            DataError: Shapes contradict each other, or a probability is NaN.
        """
        values, labels = as_image(probabilities, target, num_classes=self.num_classes)
        bins = self.count.size
        predicted = values.argmax(axis=0) if prediction is None else as_array(prediction)
        confidence = values.max(axis=0)
        # Bin b holds b / bins <= confidence < (b + 1) / bins, the last one also 1; ignored pixels go behind it.
        position = (confidence * bins).astype(np.int16).clip(max=bins - 1)
        position[labels == self.ignore_index] = bins
        position, hits = position.reshape(-1), (predicted == labels).reshape(-1)
        right = np.bincount(position * 2 + hits, minlength=2 * bins + 2).reshape(bins + 1, 2)[:bins]
        self.count += right.sum(axis=1)
        self.right += right[:, 1]
        self.confidence_sum += np.bincount(position, weights=confidence.reshape(-1), minlength=bins + 1)[:bins]

    def calibration(self) -> CalibrationRecord:
        """Return the reliability diagram of everything counted so far."""
        total = int(self.count.sum())
        error = float(np.abs(self.confidence_sum - self.right).sum() / total) if total else None
        sums = zip(self.confidence_sum.tolist(), self.right.tolist(), self.count.tolist(), strict=True)
        bins = [
            CalibrationBin(confidence=confidence / count, accuracy=right / count, count=count)
            if count
            else CalibrationBin(count=0)
            for confidence, right, count in sums
        ]
        return CalibrationRecord(expected_calibration_error=error, bins=bins)
