"""The index of pixels by class."""

from __future__ import annotations

import numpy as np
import pytest

from segshrink.data.class_positions import ClassPositions


def test_classes_are_drawn_alike_and_pixels_have_their_class() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 1, 255], (2100, 40), p=[0.6, 0.3, 0.1]).astype(np.uint8) for _ in range(3)]
    masks[1][2050, 7] = 4  # the only pixel of its class, in the last block of rows
    positions = ClassPositions(masks, seed=0)
    assert positions.classes == (0, 1, 4)
    drawn = [positions.draw(rng) for _ in range(6000)]
    labels = [int(masks[scene][row, col]) for scene, row, col in drawn]
    shares = np.bincount(labels, minlength=5) / len(labels)
    np.testing.assert_allclose(shares[[0, 1, 4]], 1 / 3, atol=0.03)
    assert {place for place, label in zip(drawn, labels, strict=True) if label == 4} == {(1, 2050, 7)}
    rows = [row for (_, row, _), label in zip(drawn, labels, strict=True) if label == 0]
    assert np.mean(rows) == pytest.approx(1050, abs=60)


def test_scenes_are_drawn_by_their_pixels_of_the_class() -> None:
    masks = [np.zeros((10, 10), np.uint8), np.zeros((100, 90), np.uint8)]
    positions = ClassPositions(masks, seed=0)
    rng = np.random.default_rng(1)
    scenes = [positions.draw(rng)[0] for _ in range(4000)]
    assert np.mean(scenes) == pytest.approx(9000 / 9100, abs=0.01)


def test_masks_without_classes() -> None:
    positions = ClassPositions([np.full((5, 5), 255, np.uint8)], seed=0)
    assert positions.classes == ()
    with pytest.raises(ValueError, match="no pixel"):
        positions.draw(np.random.default_rng(0))
