"""Calibration: does a confidence of 80 % mean that 80 % of such pixels are right?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.evaluation.curves import as_image_tensors, as_tensor
from segshrink.evaluation_records import CalibrationBin, CalibrationRecord

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
        values, labels = as_image_tensors(probabilities, target, num_classes=self.num_classes)
        bins = self.count.size
        predicted = values.max(dim=0).indices if prediction is None else as_tensor(prediction).to(values.device)
        confidence = values.amax(dim=0)
        # Bin b holds b / bins <= confidence < (b + 1) / bins, the last one also 1; ignored pixels go behind it.
        position = (confidence * bins).to(torch.int16).clamp_(max=bins - 1)
        position = position.masked_fill_(labels == self.ignore_index, bins).reshape(-1)
        hits = (predicted == labels).reshape(-1)
        right = torch.bincount(position * 2 + hits, minlength=2 * bins + 2).view(bins + 1, 2)[:bins]
        summed = torch.bincount(position, weights=confidence.reshape(-1).to(torch.float64), minlength=bins + 1)[:bins]
        self.count += right.sum(dim=1).cpu().numpy()
        self.right += right[:, 1].cpu().numpy()
        self.confidence_sum += summed.cpu().numpy()

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
