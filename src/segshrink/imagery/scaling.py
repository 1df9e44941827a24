"""Linear maps of raw pixel values: onto the numbers that a model takes, or by scale and offset tags.

Such tags say what a raw number of a band stands for: value = number × scale + offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ConfigError, DataError, UsageError
from segshrink.imagery.bands import Bands

# (scale, offset) of each band, in order.
Scaling = tuple[tuple[float, float], ...]
PixelMap = Callable[[NDArray[Any]], NDArray[Any]]

_NO_TAGS = (1.0, 0.0)
# Scales and offsets that differ by less than this part (of a scale) are the same, written with other digits.
_CLOSE = 1e-6
# The upper end of a model's range for each type of numbers: the largest number, or 1.
_HIGHEST = {"uint8": 255, "uint16": 65535, "int16": 32767, "float32": 1}


def rescaling(source: str, target: str, scale: tuple[float, float]) -> PixelMap:
    """Return a function that maps ``scale`` = (low, high) onto 0 and the largest whole number, or 0 and 1 of float32.

    Whole numbers are rounded, and clipped beyond the scale; float32 goes on below 0 and above 1.

    Raises:
        UsageError: low and high are equal or not finite.
        ConfigError: A model can't take numbers of the type ``target``.
    """
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise UsageError(f"--scale takes two different numbers, found {low:g}:{high:g}; give the dark one first")
    if target not in _HIGHEST:
        raise ConfigError(f"a model takes {', '.join(_HIGHEST)}, not {target}")

    def mapped(values: NDArray[Any]) -> NDArray[Any]:
        highest, number = _HIGHEST[target], values.dtype.type
        results = (values - number(low)) * number(highest) / number(high - low)
        if target != "float32":
            results = np.rint(np.clip(results, 0, highest, out=results), out=results)
        return np.asarray(results.astype(target))

    if not np.issubdtype(np.dtype(source), np.integer):
        return mapped
    limits = np.iinfo(source)
    # float64, so that 16-bit values come out exactly.
    table = mapped(np.arange(limits.min, limits.max + 1, dtype=np.float64))
    if limits.min == 0:
        return lambda pixels: np.take(table, pixels)
    return lambda pixels: np.take(table, pixels.astype(np.int32) - int(limits.min))


def scaling_of(dataset: Any, bands: Bands) -> Scaling | None:
    """Return scale and offset of some bands of an open rasterio dataset; None where no band has a tag."""
    scales, offsets = dataset.scales, dataset.offsets
    tags = ((float(scales[number - 1]), float(offsets[number - 1])) for number in bands.numbers)
    usable = tuple(tag if math.isfinite(sum(tag)) and tag[0] != 0 else _NO_TAGS for tag in tags)
    return None if bands.palette is not None or set(usable) == {_NO_TAGS} else usable


class ScalingChange:
    """Turns raw numbers of a file into the ones that a model's scales and offsets give the same values.

    Args:
        file: The file's scales and offsets; None where it has no tags.
        model: The model's; None where nothing is known, and nothing is changed.
        dtype: The numbers' type.
        name: What errors call the file.

    Raises:
        DataError: Only one of the two has tags, and they don't mean the same numbers.
    """

    def __init__(self, file: Scaling | None, model: Scaling | None, *, dtype: str, name: str) -> None:
        self._changes: list[tuple[float, float]] = []
        if model is None or file == model:
            return
        changes = [
            _change(source, target) for source, target in zip(file or (_NO_TAGS,) * len(model), model, strict=True)
        ]
        if None in changes:
            raise DataError(
                f"the scale and offset tags of {name} are {describe_scaling(file)}, but {describe_scaling(model)} in "
                "the images that the model is for; set the missing tags (gdal_edit.py -scale -offset), or predict with "
                f"the numbers as they are: --scale 0:{_HIGHEST.get(dtype, 1)}"
            )
        if set(changes) != {_NO_TAGS}:
            self._changes = [change for change in changes if change is not None]

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self._changes)

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Change (h, w, bands) raw numbers; whole numbers are rounded and clipped to what their type holds."""
        if not self._changes:
            return pixels
        factor, shift = np.array(self._changes, dtype=np.float64).T
        values = pixels * factor + shift
        if np.issubdtype(pixels.dtype, np.integer):
            limits = np.iinfo(pixels.dtype)
            np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
        return np.asarray(values.astype(pixels.dtype))


def describe_scaling(scaling: Sequence[tuple[float, float]] | None) -> str:
    """Write scales and offsets for people."""
    if scaling is None:
        return "none"
    return " and ".join(dict.fromkeys(f"{scale:g}, {offset:g}" for scale, offset in scaling))


def _change(source: tuple[float, float], target: tuple[float, float]) -> tuple[float, float] | None:
    """Return factor and shift of raw numbers from one scale and offset to another; None where one says nothing."""
    factor, shift = source[0] / target[0], (source[1] - target[1]) / target[0]
    same_scale = abs(factor - 1) < _CLOSE
    if same_scale and abs(shift) < _CLOSE:
        return _NO_TAGS
    if same_scale or _NO_TAGS not in (source, target):
        return (1.0 if same_scale else factor), shift
    return _NO_TAGS if source[1] == target[1] == 0 else None
