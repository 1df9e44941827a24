"""Curves from histograms against scikit-learn's, which sorts every pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segshrink.errors import DataError
from segshrink.evaluation import ProbabilityHistograms
from segshrink.evaluation.curves import BINS, MAXIMUM_POINTS, _bins


def scene(seed, *, classes=4, side=64, sharpness=3.0, separation=1.0):
    """Probabilities (C, side, side) that are better than chance, and a target with some ignored pixels."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (side, side)).astype(np.uint8)
    logits = rng.normal(size=(classes, side, side)) * sharpness
    logits += separation * sharpness * (np.arange(classes)[:, None, None] == target)
    target[rng.random(target.shape) < 0.1] = 255
    probabilities = torch.softmax(torch.tensor(logits), dim=0).float().numpy()
    return probabilities, target


@pytest.mark.parametrize("case", ["metric_basic", "metric_binary", "metric_absent_label_only"])
def test_average_precision_agrees_with_the_oracles(oracles: Path, case):
    arrays = np.load(oracles / f"{case}.npz")
    histograms = ProbabilityHistograms(len(arrays["out_confusion"]))
    for logits, target in zip(arrays["in_logits"], arrays["in_labels"], strict=True):
        histograms.update(torch.softmax(torch.tensor(logits), dim=0), target)
    precision = np.array([curve.average_precision for curve in histograms.curves()], dtype=float)
    np.testing.assert_allclose(precision, arrays["out_average_precision"], atol=1e-3)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 5.0, 20.0])
def test_average_precision_of_many_pixels_agrees_with_scikit_learn(sharpness):
    probabilities, target = scene(0, side=160, sharpness=sharpness)
    histograms = ProbabilityHistograms(4)
    histograms.update(probabilities, target)
    valid = target != 255
    for position, curve in enumerate(histograms.curves(("a", "b", "c", "d"))):
        expected = sklearn.metrics.average_precision_score(target[valid] == position, probabilities[position][valid])
        assert curve.average_precision == pytest.approx(expected, abs=1e-3)


def test_points_of_a_curve_lie_on_the_exact_curve():
    probabilities, target = scene(1, side=100)
    histograms = ProbabilityHistograms(4)
    histograms.update(probabilities, target)
    valid = target != 255
    exact_precision, exact_recall, _ = sklearn.metrics.precision_recall_curve(
        target[valid] == 2, probabilities[2][valid]
    )
    curve = histograms.curves()[2]
    assert len(curve.precision) == len(curve.recall) <= MAXIMUM_POINTS
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == 1
    for precision, recall in zip(curve.precision, curve.recall, strict=True):
        distance = np.abs(exact_precision - precision) + np.abs(exact_recall - recall)
        assert distance.min() < 1e-9  # every threshold between two bins is a threshold of the exact curve
    # Drawn over the exact curve, it leaves no gap.
    drawn = np.interp(exact_recall[50:-50], curve.recall, curve.precision)
    assert np.abs(drawn - exact_precision[50:-50]).mean() < 0.01


def test_a_perfect_model_has_average_precision_one():
    _, target = scene(2)
    target[target == 255] = 0
    probabilities = (np.arange(4)[:, None, None] == target).astype(np.float32)
    histograms = ProbabilityHistograms(4)
    histograms.update(probabilities, target)
    assert [curve.average_precision for curve in histograms.curves()] == [1.0] * 4


def test_constant_probabilities_give_the_share_of_the_class():
    _, target = scene(3)
    histograms = ProbabilityHistograms(4)
    histograms.update(np.full((4, *target.shape), 0.25, np.float32), target)
    valid = target[target != 255]
    for position, curve in enumerate(histograms.curves()):
        assert curve.average_precision == pytest.approx((valid == position).mean())


def test_streaming_merging_and_one_big_scene_are_the_same():
    parts = [scene(seed) for seed in range(3)]
    whole, streamed, merged = (ProbabilityHistograms(4) for _ in range(3))
    whole.update(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))
    for probabilities, target in parts:
        streamed.update(probabilities, torch.tensor(target).long())
        one = ProbabilityHistograms(4)
        one.update(probabilities, target)
        merged.merge(one)
    np.testing.assert_array_equal(streamed.counts, whole.counts)
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert whole.counts.sum() == 4 * sum((target != 255).sum() for _, target in parts)


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60))
def test_bins_never_fall_with_the_probability(values):
    bins = _bins(np.array(sorted(values), np.float32))
    assert (np.diff(bins) >= 0).all()
    assert 0 <= int(bins.min()) <= int(bins.max()) < BINS


def test_bins_are_fine_near_both_ends():
    for near in ([1e-6, 1.01e-6, 1e-4, 1.01e-4], [0.99, 0.9901, 0.999, 0.99901]):
        assert len(np.unique(_bins(np.array(near, np.float32)))) == 4
    assert _bins(np.array([0.0, 1.0], np.float32)).tolist() == [0, BINS - 1]


def test_an_absent_class_has_no_curve():
    probabilities, target = scene(4)
    target[target == 3] = 255
    histograms = ProbabilityHistograms(4)
    histograms.update(probabilities, target)
    curve = histograms.curves(("a", "b", "c", "d"))[3]
    assert curve.to_json() == {"class": "d", "average_precision": None, "precision": [], "recall": []}
    json.dumps([curve.to_json() for curve in histograms.curves()], allow_nan=False)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.full((3, 4, 4), np.nan, np.float32), "NaN"),
        (np.zeros((2, 4, 4), np.float32), "don't fit"),
        (np.zeros((3, 4, 5), np.float32), "don't fit"),
    ],
)
def test_refuses_what_it_cannot_count(probabilities, message):
    with pytest.raises(DataError, match=message):
        ProbabilityHistograms(3).update(probabilities, np.zeros((4, 4), np.uint8))


def test_the_pooled_curve_is_the_micro_average():
    rng = np.random.default_rng(3)
    target = rng.integers(0, 4, (40, 50)).astype(np.uint8)
    logits = rng.normal(size=(4, 40, 50)) + 1.5 * (np.arange(4)[:, None, None] == target)
    probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    histograms = ProbabilityHistograms(4)
    histograms.update(probabilities, target)
    truth = np.arange(4)[:, None] == target.reshape(1, -1)
    expected = sklearn.metrics.average_precision_score(truth.T, probabilities.reshape(4, -1).T, average="micro")
    assert histograms.pooled_curve().average_precision == pytest.approx(expected, abs=1e-3)
