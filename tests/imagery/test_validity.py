"""Pixels without data: which they are, and what fills them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segshrink.imagery.validity import fill_nodata, holds_nodata


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("uint8", 0, [True, False, False]),  # a dark pixel's blue may be 0
        ("uint16", 65535, [False, False, False]),
        ("int16", -9999, [False, False, True]),
        ("int16", 0, [True, False, False]),
        ("float32", 0, [True, False, False]),
        ("float32", -9999, [False, False, True]),
        ("float32", float("nan"), [False, False, False]),
        ("uint8", -9999, [False, False, False]),
        ("uint8", 1.5, [False, False, False]),
        ("float32", -1.7976931348623157e308, [False, False, False]),
    ],
)
def test_a_value_that_may_be_measured_must_stand_in_all_bands(dtype: str, nodata: float, expected: list[bool]) -> None:
    pixels: Any = np.array([[[0, 0], [0, 7], [7, -9999]]]).astype(dtype)
    np.testing.assert_array_equal(holds_nodata(pixels, nodata)[0], expected)


def test_pixels_take_the_nearest_in_their_row_or_column() -> None:
    pixels = np.arange(5 * 7, dtype=np.float32).reshape(5, 7, 1) + 1
    valid = np.zeros((5, 7), dtype=bool)
    valid[1, 1] = valid[3, 5] = True
    fill_nodata(pixels, valid)
    first, second = 9, 27

    # Rows 1 and 3 and columns 1 and 5 see one of the two, and where both are in sight the nearer.
    assert (pixels[1, :, 0] == [first] * 5 + [second] + [first]).all()
    assert (pixels[3, :, 0] == [second, first] + [second] * 5).all()
    assert (pixels[:, 1, 0] == first).all()
    assert (pixels[:, 5, 0] == second).all()
    # The rest takes what its row or column took.
    assert set(np.unique(pixels)) == {first, second}
    assert pixels[0, 0, 0] == first
    assert pixels[4, 6, 0] == second


def test_filling_agrees_with_a_search_over_all_pixels() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.normal(size=(20, 30, 2))
    valid = rng.random((20, 30)) < 0.1
    filled = pixels.copy()
    fill_nodata(filled, valid)

    np.testing.assert_array_equal(filled[valid], pixels[valid])
    for row, col in np.argwhere(~valid):
        cross = np.argwhere(valid & ((np.arange(20)[:, None] == row) | (np.arange(30) == col)))
        if len(cross):
            distances = np.abs(cross - (row, col)).sum(axis=1)
            nearest = cross[distances == distances.min()]
            assert any((filled[row, col] == pixels[tuple(place)]).all() for place in nearest)


def test_nothing_valid_becomes_zero() -> None:
    pixels = np.full((3, 4, 2), np.nan)
    fill_nodata(pixels, np.zeros((3, 4), dtype=bool))

    assert not pixels.any()
