"""Areas on the evaluated maps, and what a teacher's soft answers say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.evaluation import Confusion
from segshrink.evaluation.areas import MappedAreas
from segshrink.evaluation.soft_answers import SoftAnswers
from segshrink.scores import error_adjusted_areas


def scenes(count: int, labeled: float = 1.0):
    rng = np.random.default_rng(0)
    for _ in range(count):
        truth = rng.integers(0, 3, (20, 30)).astype(np.uint8)
        wrong = rng.random(truth.shape) < 0.3
        prediction = np.where(wrong, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
        truth[rng.random(truth.shape) > labeled] = 255
        yield prediction, truth


def counted(count: int, labeled: float = 1.0) -> tuple[MappedAreas, np.ndarray]:
    areas, whole = MappedAreas(3), Confusion(3)
    for prediction, truth in scenes(count, labeled):
        confusion = Confusion(3).update(prediction, truth)
        areas.update(prediction, confusion.matrix)
        whole.merge(confusion)
    return areas, whole.matrix


def test_wholly_labeled_maps_are_corrected_to_the_truth() -> None:
    areas, matrix = counted(6)
    records = areas.areas()
    assert [record.adjusted for record in records] == pytest.approx((matrix.sum(axis=1) / matrix.sum()).tolist())
    assert [record.mapped for record in records] == pytest.approx((matrix.sum(axis=0) / matrix.sum()).tolist())
    assert all(record.low < record.adjusted < record.high for record in records)


def test_unlabeled_pixels_count_in_the_map_and_the_labeled_ones_correct_it() -> None:
    areas, matrix = counted(6, labeled=0.4)
    expected = error_adjusted_areas(matrix, areas.mapped)[0] / (6 * 20 * 30)
    assert [record.adjusted for record in areas.areas()] == pytest.approx(expected.tolist())
    assert areas.mapped.sum() == 6 * 20 * 30


def test_more_scenes_give_narrower_intervals() -> None:
    few, many = (counted(count)[0].areas() for count in (4, 64))
    assert many[0].high - many[0].low < 0.5 * (few[0].high - few[0].low)


def test_one_scene_has_no_interval_and_pixels_without_data_no_area() -> None:
    areas = MappedAreas(2)
    areas.update(np.array([[0, 1, 255, 255]], np.uint8), np.array([[1, 0], [0, 1]]))
    first, second = areas.areas()
    assert (first.mapped, first.adjusted, first.low, first.high) == (0.5, 0.5, None, None)
    assert second.mapped == 0.5
    assert MappedAreas(2).areas() == ()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_answers_are_the_mean_softened_probabilities(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(3, 8, 12)).astype(np.float32)).repeat_interleave(4, 1)
    logits = logits.repeat_interleave(4, 2)
    target = rng.integers(0, 2, (8, 12)).astype(np.uint8)
    target[0, 0] = 255
    target = target.repeat(4, 0).repeat(4, 1)
    answers = SoftAnswers(3, temperature)
    answers.update(logits.softmax(0).numpy(), target)
    record = answers.record()
    softened = (logits / temperature).softmax(0).numpy()
    for true in (0, 1):
        assert record.matrix[true] == pytest.approx(softened[:, target == true].mean(axis=1).tolist(), rel=1e-4)
    assert record.matrix[2] == (None, None, None)
    assert record.temperature == temperature
