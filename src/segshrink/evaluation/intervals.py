"""How far the scores of a set would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import DataError
from segshrink.run_records import IntervalRecord
from segshrink.scores import mean_iou_of_marginals

# Numbers worked on at once: 8 MB of float64.
_ENTRIES_AT_ONCE = 1_000_000


def bootstrap_interval(
    per_image: Sequence[NDArray[np.int64]], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> IntervalRecord | None:
    """Return percentile intervals of mIoU and accuracy over sets of as many images drawn with replacement.

    Each drawn set is scored as a whole, by the sum of its images' confusion matrices (Efron 1979; percentile method).
    It tells the spread over images only, not over training seeds. Images without a labeled pixel aren't drawn.

    Args:
        per_image: What ``marginals`` gives of each image's confusion matrix, (n, 3, C).
        level: Share in (0, 1) of the resamples inside the interval.
        resamples: Number of drawn sets.
        seed: The same seed gives the same interval.

    Returns:
        The intervals; None for fewer than two images.

    Raises:
        DataError: ``level`` or ``resamples`` is out of range.
    """
    if not 0 < level < 1 or resamples < 1:
        raise DataError(f"a bootstrap needs 0 < level < 1 and at least one resample, found {level} and {resamples}")
    labeled = [counts for counts in per_image if counts[0].any()]
    images = len(labeled)
    if images < 2:
        return None
    flat = np.stack(labeled).reshape(images, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _ENTRIES_AT_ONCE // max(flat.shape))
    mean_ious, accuracies = [], []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=min(step, resamples - start))
        counts = (drawn.astype(np.float64) @ flat).reshape(len(drawn), 3, -1)
        mean_ious.append(mean_iou_of_marginals(counts))
        accuracies.append(counts[:, 2].sum(axis=1) / counts[:, 0].sum(axis=1))
    ends = [(1 - level) / 2, (1 + level) / 2]
    mean_iou, accuracy = (np.quantile(np.concatenate(parts), ends).tolist() for parts in (mean_ious, accuracies))
    return IntervalRecord(mean_iou=mean_iou, accuracy=accuracy, level=level, resamples=resamples)
