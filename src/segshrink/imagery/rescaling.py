"""Mapping raw pixel values linearly onto the numbers that a model takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ConfigError

# What the upper end of a scale becomes.
_HIGHEST = {"uint8": 255, "uint16": 65535, "int16": 32767, "float32": 1}


class Rescaling:
    """Maps ``scale`` = (low, high) onto 0 and the largest value of whole numbers, or onto 0 and 1 of float32.

    Whole numbers are rounded, and clipped beyond the scale; float32 goes on below 0 and above 1.

    Raises:
        ConfigError: low and high are equal or not finite, or ``target`` is none of our numbers.
    """

    def __init__(self, source: str, target: str, scale: tuple[float, float]) -> None:
        low, high = scale
        if not (math.isfinite(low) and math.isfinite(high)) or low == high:
            raise ConfigError(f"--scale takes two different numbers, found {low:g},{high:g}; give the dark one first")
        if target not in _HIGHEST:
            raise ConfigError(f"a model takes {', '.join(_HIGHEST)}, not {target}")
        self.low, self.high, self.target = low, high, target
        self._table: NDArray[Any] | None = None
        self._lowest = 0
        if np.issubdtype(np.dtype(source), np.integer):
            limits = np.iinfo(source)
            self._lowest = int(limits.min)
            # float64, so that 16-bit values come out exactly.
            self._table = self._mapped(np.arange(limits.min, limits.max + 1, dtype=np.float64))

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Map pixels of any shape."""
        if self._table is None:
            return self._mapped(pixels)
        if self._lowest == 0:
            return np.take(self._table, pixels)
        return np.take(self._table, pixels.astype(np.int32) - self._lowest)

    def _mapped(self, values: NDArray[Any]) -> NDArray[Any]:
        highest, number = _HIGHEST[self.target], values.dtype.type
        mapped = (values - number(self.low)) * number(highest) / number(self.high - self.low)
        if self.target != "float32":
            mapped = np.rint(np.clip(mapped, 0, highest, out=mapped), out=mapped)
        result: NDArray[Any] = mapped.astype(self.target)
        return result
