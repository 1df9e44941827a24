"""Scores of a confusion matrix against scikit-learn's report, and areas against the example that was published."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics

from segshrink.scores import error_adjusted_areas, scores_of


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("never", ["", "predicted", "true", "both"])
def test_means_and_support_are_those_of_scikit_learn(seed: int, never: str) -> None:
    rng = np.random.default_rng(seed)
    target, prediction = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    if never in ("predicted", "both"):
        prediction[prediction == 2] = 0
    if never in ("true", "both"):
        target[target == 2] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is never predicted
        report = sklearn.metrics.classification_report(target, prediction, output_dict=True)
    scores = scores_of(sklearn.metrics.confusion_matrix(target, prediction, labels=range(5)))
    for mean in ("macro", "weighted"):
        expected = report[f"{mean} avg"]
        values = [getattr(scores, f"{mean}_{name}") for name in ("precision", "recall", "f1")]
        assert values == pytest.approx([expected["precision"], expected["recall"], expected["f1-score"]])
    for number in (int(key) for key in report if key.isdigit()):
        expected = report[str(number)]
        values = [scores.precision[number], scores.recall[number], scores.f1[number], scores.support[number]]
        assert np.nan_to_num(values).tolist() == pytest.approx(
            [expected["precision"], expected["recall"], expected["f1-score"], expected["support"]]
        )
    assert scores.accuracy == pytest.approx(report["accuracy"])


# Olofsson et al. 2014, tables 8 and 9: 640 places in four strata of a map of 900,000 hectares.
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])  # [mapped, true]
HECTARES = 900_000 * np.array([0.020, 0.015, 0.320, 0.645])


def test_areas_are_those_of_the_published_example() -> None:
    areas, errors = error_adjusted_areas(SAMPLE.T, HECTARES)
    assert areas.round().tolist() == [21_158, 11_686, 285_770, 581_386]
    assert (1.96 * errors).round().tolist() == [6_158, 3_756, 15_510, 16_282]


def test_areas_of_many_samples_are_those_of_each() -> None:
    areas, errors = error_adjusted_areas(np.stack([SAMPLE.T, 3 * SAMPLE.T]), HECTARES)
    assert areas[0].tolist() == pytest.approx(areas[1].tolist())
    assert errors[1].tolist() == pytest.approx(error_adjusted_areas(3 * SAMPLE.T, HECTARES)[1].tolist())


def test_a_class_without_area_needs_no_sample_and_one_with_area_does() -> None:
    counts = np.array([[8, 0, 2], [0, 0, 0], [1, 0, 9]])
    assert error_adjusted_areas(counts, [10, 0, 20])[0].tolist() == pytest.approx(
        [10 * 8 / 9 + 20 * 2 / 11, 0, 10 / 9 + 20 * 9 / 11]
    )
    assert np.isnan(error_adjusted_areas(counts, [10, 5, 20])[0]).all()
