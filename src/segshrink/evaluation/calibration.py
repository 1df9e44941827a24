"""Calibration: does a confidence of 80 % mean that 80 % of such pixels are right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.evaluation.curves import as_image_tensors, as_tensor

DEFAULT_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram.

    Attributes:
        expected_calibration_error: Mean over pixels of |accuracy − confidence| of the pixel's bin (Guo et al. 2017,
            L1); NaN without pixels.
        confidence: (bins,) mean confidence of the pixels in the bin; NaN in empty bins.
        accuracy: (bins,) share of them predicted right; NaN in empty bins.
        count: (bins,) pixels.
    """

    expected_calibration_error: float
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; NaN becomes None."""
        error = self.expected_calibration_error
        rows = zip(self.confidence.tolist(), self.accuracy.tolist(), self.count.tolist(), strict=True)
        return {
            "expected_calibration_error": None if np.isnan(error) else error,
            "bins": [
                {
                    "confidence": confidence if count else None,
                    "accuracy": accuracy if count else None,
                    "count": count,
                }
                for confidence, accuracy, count in rows
            ],
        }


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

    def calibration(self) -> Calibration:
        """Return the reliability diagram of everything counted so far."""
        filled = self.count > 0
        confidence, accuracy = np.full(filled.shape, np.nan), np.full(filled.shape, np.nan)
        confidence[filled] = self.confidence_sum[filled] / self.count[filled]
        accuracy[filled] = self.right[filled] / self.count[filled]
        total = int(self.count.sum())
        error = float("nan")
        if total:
            error = float(np.abs(self.confidence_sum - self.right).sum() / total)
        return Calibration(error, confidence, accuracy, self.count.copy())
