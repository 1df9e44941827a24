"""Pixels away from label borders, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from segshrink.evaluation.borders import without_borders


@pytest.mark.parametrize("width", [1, 3])
def test_a_pixel_counts_where_all_labels_around_it_are_its_own(width):
    rng = np.random.default_rng(0)
    target = np.kron(rng.choice([0, 1, 2, 255], (5, 6)), np.ones((9, 9))).astype(np.uint8)
    expected = np.full_like(target, 255)
    for row, col in np.ndindex(*target.shape):
        around = target[max(0, row - width) : row + width + 1, max(0, col - width) : col + width + 1]
        if set(around[around != 255]) == {target[row, col]}:
            expected[row, col] = target[row, col]
    np.testing.assert_array_equal(without_borders(target, width), expected)
    assert (expected != 255).any()
