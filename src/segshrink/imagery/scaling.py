"""Scale and offset tags: what a raw number of a band stands for, value = number × scale + offset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import DataError
from segshrink.imagery.bands import Bands

# (scale, offset) of each band, in order.
Scaling = tuple[tuple[float, float], ...]

_UNSAID = (1.0, 0.0)
# Scales and offsets that differ by less than this part (of a scale) are the same, written with other digits.
_CLOSE = 1e-6
# The largest number of each type, and --scale that leaves numbers as they are.
_HIGHEST = {"uint8": 255, "uint16": 65535, "int16": 32767, "float32": 1}


def scaling_of(dataset: Any, bands: Bands) -> Scaling | None:
    """Return scale and offset of some bands of an open rasterio dataset; None where no band has a tag."""
    found = tuple(_plain(dataset.scales[number - 1], dataset.offsets[number - 1]) for number in bands.numbers)
    return None if bands.palette is not None or all(tags == _UNSAID for tags in found) else found


class ScalingChange:
    """Turns raw numbers of a file into the ones that a model's scales and offsets give the same values.

    Args:
        found: The file's; None where it has no tags.
        wanted: The model's; None where nothing is known, and nothing is changed.
        dtype: The numbers' type.
        name: What errors call the file.

    Raises:
        DataError: Only one of the two has tags, and they don't mean the same numbers.
    """

    def __init__(self, found: Scaling | None, wanted: Scaling | None, *, dtype: str, name: str) -> None:
        self._factors: list[tuple[float, float]] = []
        if wanted is None or found == wanted:
            return
        factors = [_factor(here, there) for here, there in zip(found or (_UNSAID,) * len(wanted), wanted, strict=True)]
        if None in factors:
            raise DataError(
                f"the scale and offset tags of {name} are {told_scaling(found)}, but {told_scaling(wanted)} in the "
                "images that the model is for; set the missing tags (gdal_edit.py -scale -offset), or predict with the "
                f"numbers as they are: --scale 0,{_HIGHEST.get(dtype, 1)}"
            )
        if any(factor != (1.0, 0.0) for factor in factors):
            self._factors = [factor for factor in factors if factor is not None]

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self._factors)

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Change (h, w, bands) raw numbers; whole numbers are rounded and clipped to what their type holds."""
        if not self._factors:
            return pixels
        factor, shift = np.array(self._factors, dtype=np.float64).T
        values = pixels * factor + shift
        if np.issubdtype(pixels.dtype, np.integer):
            limits = np.iinfo(pixels.dtype)
            np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
        result: NDArray[Any] = values.astype(pixels.dtype)
        return result


def _plain(scale: float, offset: float) -> tuple[float, float]:
    return (float(scale), float(offset)) if math.isfinite(scale + offset) and scale != 0 else _UNSAID


def _factor(here: tuple[float, float], there: tuple[float, float]) -> tuple[float, float] | None:
    """Return factor and shift of raw numbers from one scale and offset to another; None where one says nothing."""
    factor, shift = here[0] / there[0], (here[1] - there[1]) / there[0]
    same_scale = abs(factor - 1) < _CLOSE
    if same_scale and abs(shift) < _CLOSE:
        return 1.0, 0.0
    if same_scale or _UNSAID not in (here, there):
        return (1.0 if same_scale else factor), shift
    return (1.0, 0.0) if here[1] == there[1] == 0 else None


def told_scaling(scaling: Sequence[tuple[float, float]] | None) -> str:
    """Write scales and offsets for people."""
    if scaling is None:
        return "none"
    return " and ".join(dict.fromkeys(f"{scale:g}, {offset:g}" for scale, offset in scaling))
