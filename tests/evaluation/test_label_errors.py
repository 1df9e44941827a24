"""Confident learning on pixels, against plain loops and planted mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from segshrink.evaluation.label_errors import (
    SelfConfidence,
    confident_classes,
    contradicted_regions,
    label_doubt,
    label_margin,
)


def random_scene(height: int = 12, width: int = 15, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (classes, height, width)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    target = rng.choice([*range(classes - 1), 255], (height, width)).astype(np.uint8)  # no label holds the last
    return probabilities, target


def test_thresholds_are_the_mean_probability_of_labels_over_all_scenes() -> None:
    confidence = SelfConfidence(3)
    confidence.update(np.array([[[0.9, 0.5]], [[0.1, 0.5]], [[0, 0]]], np.float32), np.array([[0, 1]], np.uint8))
    confidence.update(np.array([[[0.6, 0.2]], [[0.4, 0.8]], [[0, 0]]], np.float32), np.array([[0, 255]], np.uint8))
    assert confidence.thresholds() == pytest.approx([0.75, 0.5, 1.0])


def test_confident_class_and_margin_of_each_pixel() -> None:
    probabilities, target = random_scene()
    thresholds = np.array([0.3, 0.2, 0.5, 1.0], np.float32)
    confident, margin = confident_classes(probabilities, thresholds), label_margin(probabilities, target)
    for row, col in np.ndindex(*target.shape):
        pixel, label = probabilities[:, row, col], target[row, col]
        reached = [index for index in range(4) if pixel[index] >= thresholds[index]]
        assert confident[row, col] == (max(reached, key=lambda index: pixel[index]) if reached else 255)
        others = [pixel[index] for index in range(4) if index != label]
        assert margin[row, col] == pytest.approx(-1 if label == 255 else max(others) - pixel[label])
    assert {255, 0, 1} <= set(np.unique(confident))


def test_doubt_is_the_mean_over_labeled_pixels_around() -> None:
    probabilities, target = random_scene()
    thresholds = np.array([0.3, 0.2, 0.5, 0.9], np.float32)
    doubt = label_doubt(probabilities, target, thresholds, width=1)
    above = probabilities - thresholds[:, None, None]
    for row, col in np.ndindex(*target.shape):
        if target[row, col] == 255:
            assert np.isnan(doubt[row, col])
            continue
        margins = []
        for near_row, near_col in np.ndindex(*target.shape):
            label = target[near_row, near_col]
            if max(abs(near_row - row), abs(near_col - col)) <= 1 and label != 255:
                pixel = above[:, near_row, near_col]
                margins.append(max(np.delete(pixel, label)) - pixel[label])
        assert doubt[row, col] == pytest.approx(np.mean(margins), abs=1e-5)


@pytest.mark.parametrize(("height", "found"), [(6, 0), (7, 1)])
def test_a_planted_region_is_found_unless_it_is_no_wider_than_a_border(height: int, found: int) -> None:
    target = np.zeros((40, 50), np.uint8)
    target[:, 30:] = 1
    probabilities = np.where(target[np.newaxis] == np.arange(3)[:, None, None], 0.8, 0.1).astype(np.float32)
    probabilities[:, 10 : 10 + height, 5:25] = np.array([0.1, 0.2, 0.7], np.float32)[:, None, None]
    target[38:] = 255
    regions = list(contradicted_regions(probabilities, target, np.array([0.7, 0.8, 0.5], np.float32), width=3))
    assert sum(len(part) for _, part in regions) == found
    if found:
        ((suggestion, part),) = regions
        assert (suggestion, part.classes.tolist(), part.counts.tolist()) == (2, [0], [height * 20])
        assert part.polygons[0].bounds == (5, 10, 25, 10 + height)
        assert part.totals[0] == pytest.approx(0.6 * height * 20, rel=1e-5)
