"""What a value that somebody declares as no data makes invalid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segshrink.imagery.validity import holds_nodata


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
