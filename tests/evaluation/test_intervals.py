"""The bootstrap against a plain loop, and its properties."""

from __future__ import annotations

import numpy as np
import pytest

from segshrink.errors import DataError
from segshrink.evaluation import bootstrap_interval
from segshrink.scores import marginals, scores_of


def matrices(images=12, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    confusions = rng.integers(0, 30, (images, classes, classes))
    confusions[:, range(classes), range(classes)] += rng.integers(0, 300, (images, classes))
    return confusions


def test_agrees_with_drawing_images_in_a_loop():
    per_image = matrices()
    rng = np.random.default_rng(5)
    scores = [scores_of(per_image[rng.integers(0, 12, 12)].sum(0)).mean_iou for _ in range(4000)]
    interval = bootstrap_interval(marginals(per_image), resamples=4000)
    low, high = np.quantile(scores, [0.025, 0.975])
    assert interval.mean_iou == pytest.approx((low, high), abs=0.1 * (high - low))


def test_is_seeded_and_holds_the_score_of_the_whole_set():
    per_image = matrices()
    first, second = bootstrap_interval(marginals(per_image), seed=1), bootstrap_interval(marginals(per_image), seed=1)
    assert first == second != bootstrap_interval(marginals(per_image), seed=2)
    assert first.mean_iou[0] < scores_of(per_image.sum(0)).mean_iou < first.mean_iou[1]


def test_images_without_labels_are_not_drawn():
    per_image = matrices()
    blank = np.zeros((1, 4, 4), np.int64)
    assert bootstrap_interval(marginals(np.concatenate([per_image, blank]))) == bootstrap_interval(marginals(per_image))


def test_images_that_are_all_alike_have_no_spread():
    interval = bootstrap_interval(marginals(np.repeat(matrices(1), 9, axis=0)))
    assert interval.mean_iou[0] == pytest.approx(interval.mean_iou[1])


def test_a_lower_level_is_inside_a_higher_one():
    wide, narrow = (bootstrap_interval(marginals(matrices()), level=level).mean_iou for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_many_classes_in_small_steps_are_the_same(monkeypatch):
    expected = bootstrap_interval(marginals(matrices()))
    monkeypatch.setattr("segshrink.evaluation.intervals._ENTRIES_AT_ONCE", 100)
    assert bootstrap_interval(marginals(matrices())).mean_iou == pytest.approx(expected.mean_iou, rel=1e-12)


@pytest.mark.parametrize("images", [0, 1])
def test_one_image_has_no_interval(images):
    assert bootstrap_interval(marginals(matrices(images))) is None
    assert bootstrap_interval([]) is None


@pytest.mark.parametrize(("level", "resamples"), [(0, 10), (1, 10), (0.9, 0)])
def test_refuses_levels_and_counts_out_of_range(level, resamples):
    with pytest.raises(DataError, match="bootstrap"):
        bootstrap_interval(marginals(matrices()), level=level, resamples=resamples)
