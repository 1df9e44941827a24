"""What a model's probabilities say about classes: the mean answer for the pixels of each true class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.evaluation_records import SoftAnswersRecord

# Every so many rows and columns are counted: the mean of many neighbors differs little, and powers cost time.
_STEP = 4
_SMALLEST = 1e-7


class SoftAnswers:
    """Mean softened probabilities by true class, the "dark knowledge" of Hinton et al. 2015, arXiv:1503.02531.

    Args:
        num_classes: C.
        temperature: T > 0; logits are divided by it, which takes probabilities to the power 1 / T.
    """

    def __init__(self, num_classes: int, temperature: float) -> None:
        self.temperature = temperature
        self._sums = np.zeros((num_classes, num_classes))
        self._counts = np.zeros(num_classes, np.int64)

    def update(self, probabilities: NDArray[np.float32], target: NDArray[Any]) -> None:
        """Count one image: probabilities (C, H, W) and labels (H, W), 255 where unknown."""
        labels = np.asarray(target)[::_STEP, ::_STEP]
        judged = labels != IGNORE_INDEX
        softened = np.maximum(np.asarray(probabilities)[:, ::_STEP, ::_STEP][:, judged], _SMALLEST)
        softened **= 1 / self.temperature
        softened /= softened.sum(axis=0)
        true = labels[judged].astype(np.intp)
        self._counts += np.bincount(true, minlength=self._counts.size)
        for column, values in enumerate(softened):
            self._sums[:, column] += np.bincount(true, weights=values, minlength=self._counts.size)

    def record(self) -> SoftAnswersRecord:
        """Return the means; None for classes without a pixel."""
        counts = self._counts[:, None]
        means = np.divide(self._sums, counts, out=np.full_like(self._sums, np.nan), where=counts > 0)
        return SoftAnswersRecord(temperature=self.temperature, matrix=means.tolist())
