"""The bootstrap against a plain loop, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segshrink.errors import DataError
from segshrink.evaluation import bootstrap_interval, paired_bootstrap, welch_interval
from segshrink.evaluation_records import ClassRecord, EvaluationRecord, ImageRecord, ScoresRecord
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


def evaluation(per_image):
    counts = marginals(per_image).tolist()
    images = [ImageRecord(name=str(number), counts=each) for number, each in enumerate(counts)]
    matrix = per_image.sum(0)
    scores = ScoresRecord(**scores_of(matrix).to_lists())
    classes = [ClassRecord(name=str(number)) for number in range(len(matrix))]
    return EvaluationRecord(
        data="d", split="val", classes=classes, scores=scores, confusion=matrix.tolist(), per_image=images
    )


def test_a_paired_difference_agrees_with_drawing_images_in_a_loop():
    sides = [matrices(seed=seed) for seed in (1, 2, 3)]
    rng = np.random.default_rng(5)
    differences = []
    for _ in range(3000):
        drawn = rng.integers(0, 12, 12)
        scores = [scores_of(side[drawn].sum(0)).mean_iou for side in sides]
        differences.append((scores[0] + scores[1]) / 2 - scores[2])
    first, second = [evaluation(sides[0]), evaluation(sides[1])], [evaluation(sides[2])]
    low, high = np.quantile(differences, [0.025, 0.975])
    expected = pytest.approx((low, high), abs=0.1 * (high - low))
    assert paired_bootstrap(first, second, resamples=3000) == expected


def test_a_model_differs_from_itself_by_nothing():
    same = [evaluation(matrices())]
    assert paired_bootstrap(same, same) == (0, 0)


def test_images_without_labels_are_not_drawn_in_pairs():
    sides = [matrices(images=3, seed=seed) for seed in (1, 2)]
    blank = np.zeros((2, 4, 4), int)
    expected, found = (
        paired_bootstrap(*([evaluation(np.concatenate([side, rest]))] for side in sides)) for rest in (blank[:0], blank)
    )
    assert found == expected


def test_other_images_and_old_evaluations_are_not_paired():
    whole = evaluation(matrices())
    with pytest.raises(DataError, match="same images"):
        paired_bootstrap([whole], [evaluation(matrices(images=11))])
    old = whole.model_copy(update={"per_image": [image.model_copy(update={"counts": ()}) for image in whole.per_image]})
    with pytest.raises(DataError, match="evaluate again"):
        paired_bootstrap([whole], [old])


def test_welch_interval_of_two_and_three_seeds():
    # Variances of the means 0.0002 / 2 and 0.0001 / 3; the degrees of freedom are Welch-Satterthwaite's.
    first, second = [0.60, 0.62], [0.50, 0.51, 0.52]
    low, high = welch_interval(first, second)
    error = np.sqrt(0.0002 / 2 + 0.0001 / 3)
    freedom = error**4 / (0.0001**2 + (0.0001 / 3) ** 2 / 2)
    assert (low + high) / 2 == pytest.approx(0.1)
    assert stats.t.cdf((high - 0.1) / error, freedom) == pytest.approx(0.975)
    assert welch_interval([0.6], second) is None
