"""How far the scores of a set would move with other images, and a difference of models with other seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import DataError
from segshrink.evaluation_records import EvaluationRecord, IntervalRecord
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
    mean_ious, accuracies = _resampled(np.stack(labeled), resamples=resamples, seed=seed)
    return IntervalRecord(
        mean_iou=_middle(mean_ious, level), accuracy=_middle(accuracies, level), level=level, resamples=resamples
    )


def paired_bootstrap(
    first: Sequence[EvaluationRecord],
    second: Sequence[EvaluationRecord],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the interval of a difference of mIoUs over sets of images drawn with replacement, the same for all models.

    The difference is that of the means over each side's models (seeds). It tells the spread over images; the one over
    seeds is ``welch_interval``'s. Images without a labeled pixel aren't drawn.

    Args:
        first: Evaluations of the models whose mean is compared, all on the same images.
        second: Those of the models that it is compared with, on the same images.
        level: Share in (0, 1) of the resamples inside the interval.
        resamples: Number of drawn sets.
        seed: The same seed gives the same interval.

    Raises:
        DataError: A side is empty, or the images aren't the same, or say nothing of their classes.
    """
    sides = [*first, *second]
    names = [[image.name for image in evaluation.per_image] for evaluation in sides]
    if not first or not second or any(each != names[0] for each in names):
        raise DataError("a paired bootstrap compares models on the same images; evaluate all on one split")
    if not all(image.counts for evaluation in sides for image in evaluation.per_image):
        raise DataError("an evaluation of an earlier version doesn't hold each image's counts; evaluate again")
    counts = [np.array([image.counts for image in evaluation.per_image]) for evaluation in sides]
    labeled = counts[0][:, 0].any(axis=1)
    scores = [_resampled(each[labeled], resamples=resamples, seed=seed)[0] for each in counts]
    difference = np.mean(scores[: len(first)], axis=0) - np.mean(scores[len(first) :], axis=0)
    return _middle(difference, level)


def welch_interval(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the confidence interval of the difference of two means, such as of scores over seeds (Welch 1947).

    Args:
        first: Scores whose mean is compared.
        second: Scores that it is compared with.
        level: In (0, 1).

    Returns:
        The interval of mean(first) - mean(second); None where a side has fewer than two scores.

    Example:
        >>> low, high = welch_interval([0.66, 0.67, 0.68], [0.63, 0.64, 0.65])
        >>> round(low, 3), round(high, 3)
        (0.007, 0.053)
    """
    if min(len(first), len(second)) < 2:
        return None
    from scipy import stats  # takes half a second

    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(interval.low), float(interval.high)


def _resampled(
    counts: NDArray[np.int64], *, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mIoU and accuracy of each drawn set of images, (resamples,), from the images' marginals (n, 3, C)."""
    images = len(counts)
    flat = counts.reshape(images, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _ENTRIES_AT_ONCE // max(flat.shape))
    mean_ious, accuracies = [], []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=min(step, resamples - start))
        counts_drawn = (drawn.astype(np.float64) @ flat).reshape(len(drawn), 3, -1)
        mean_ious.append(mean_iou_of_marginals(counts_drawn))
        accuracies.append(counts_drawn[:, 2].sum(axis=1) / counts_drawn[:, 0].sum(axis=1))
    return np.concatenate(mean_ious), np.concatenate(accuracies)


def _middle(scores: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the ends of the middle ``level`` of scores."""
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
