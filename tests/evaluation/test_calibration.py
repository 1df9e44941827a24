"""Expected calibration error against oracles and torchmetrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from segshrink.evaluation import CalibrationHistogram


def probabilities_and_target(seed, *, classes=5, side=40):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.softmax(torch.randn(classes, side, side, generator=generator) * 2, dim=0)
    target = torch.randint(0, classes, (side, side), generator=generator)
    target[:3] = 255
    return probabilities, target


@pytest.mark.parametrize("case", ["metric_basic", "metric_binary", "metric_absent_label_only"])
def test_agrees_with_the_oracles(oracles: Path, case):
    arrays = np.load(oracles / f"{case}.npz")
    histogram = CalibrationHistogram(len(arrays["out_confusion"]))
    for logits, target in zip(arrays["in_logits"], arrays["in_labels"], strict=True):
        histogram.update(torch.softmax(torch.tensor(logits), dim=0), target)
    expected = float(arrays["out_tm_ece_15_l1"])
    assert histogram.calibration().expected_calibration_error == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bins", [5, 15, 40])
def test_agrees_with_torchmetrics(bins):
    probabilities, target = probabilities_and_target(0)
    histogram = CalibrationHistogram(5, bins=bins)
    histogram.update(probabilities, target)
    expected = multiclass_calibration_error(
        probabilities[None], target[None], num_classes=5, n_bins=bins, norm="l1", ignore_index=255
    )
    assert histogram.calibration().expected_calibration_error == pytest.approx(expected.item(), abs=1e-6)


def test_a_given_prediction_changes_nothing_and_streams_add_up():
    scenes = [probabilities_and_target(seed) for seed in range(3)]
    streamed, whole = CalibrationHistogram(5), CalibrationHistogram(5)
    for probabilities, target in scenes:
        index = probabilities.numpy().argmax(0).astype(np.uint8)
        streamed.update(probabilities.numpy(), target.numpy().astype(np.uint8), prediction=index)
    whole.update(*(torch.cat(parts, dim=-1) for parts in zip(*scenes, strict=True)))
    np.testing.assert_array_equal(streamed.count, whole.count)
    np.testing.assert_array_equal(streamed.right, whole.right)
    np.testing.assert_allclose(streamed.confidence_sum, whole.confidence_sum)
    assert whole.count.sum() == sum(int((target != 255).sum()) for _, target in scenes)


def test_certain_and_right_is_perfectly_calibrated():
    target = np.array([[0, 1], [1, 255]], np.uint8)
    probabilities = (np.arange(2)[:, None, None] == target).astype(np.float32)
    histogram = CalibrationHistogram(2)
    histogram.update(probabilities, target)
    calibration = histogram.calibration()
    assert calibration.expected_calibration_error == 0
    assert [entry.count for entry in calibration.bins] == [0] * 14 + [3]
    assert calibration.bins[-1].accuracy == calibration.bins[-1].confidence == 1


def test_empty_bins_are_none_and_no_pixels_give_none():
    histogram = CalibrationHistogram(2)
    histogram.update(np.full((2, 3, 3), 0.5, np.float32), np.full((3, 3), 255, np.uint8))
    content = histogram.calibration().to_json()
    assert content["expected_calibration_error"] is None
    assert content["bins"] == [{"confidence": None, "accuracy": None, "count": 0}] * 15
