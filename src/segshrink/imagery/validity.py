"""Which pixels of a raster have a value (transparency, masks, no-data values, NaN), and filling the others."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window

from segshrink.imagery.bands import Bands

_FAR = np.int32(1 << 29)


class Validity:
    """What makes pixels of some bands of an open raster invalid.

    A pixel is invalid where the file's mask or transparency band is 0, where a value is NaN or infinite, and where it
    is no-data. 0, and any number of a type without sign, are ordinary values as well (a dark pixel's blue may be 0):
    with such a no-data value a pixel is invalid only if all chosen bands have it. One that no measurement takes, such
    as -9999, makes a pixel invalid in any band. A transparency band that is itself among the chosen ones may be a
    measured one (writers mark a fourth band unasked): its pixels are invalid where all chosen bands are 0.

    Attributes:
        across_bands: Whether there are several bands and a no-data value that is ordinary, which GDAL's averages leave
            out of each band by itself.

    Args:
        dataset: A rasterio dataset or a ``Picture``.
        bands: The bands.
        dtype: The numbers that they are read as.
        declared: A no-data value that the user declares beside the file's own; None without one.
    """

    def __init__(self, dataset: Any, bands: Bands, dtype: str, *, declared: float | None = None) -> None:
        self._dataset, self._declared = dataset, declared
        flags, nodata = dataset.mask_flag_enums, dataset.nodatavals  # asked once: GDAL looks at every band each time
        flags = {number: flags[number - 1] for number in bands.numbers}
        self._masks = [number for number in flags if has_mask(flags[number])]
        if any(MaskFlags.per_dataset in flags[number] for number in self._masks):
            self._masks = self._masks[:1]
        values = [_as_read(nodata[number - 1], dtype) for number in bands.numbers]
        every = (*values, _as_read(declared, dtype))
        self.across_bands = len(values) > 1 and any(value is not None and _ordinary(value) for value in every)
        self._alpha = bands.alpha
        if bands.alpha in bands.numbers:
            self._alpha = None
            values = [np.dtype(dtype).type(0) if value is None else value for value in values]
        # Each band's no-data value, None where it has none of the kind.
        self._ordinary = [value if value is not None and _ordinary(value) else None for value in values]
        self._telling = [None if value is None or _ordinary(value) else value for value in values]

    def of_window(self, pixels: NDArray[Any], place: Window) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window are valid.

        Args:
            pixels: (h, w, bands) values that were read from the dataset.
            place: The window in pixels of the dataset.

        Returns:
            (h, w), or None when all are valid.
        """
        layers = [pixels[:, :, band] for band in range(pixels.shape[2])]
        invalid = np.zeros(pixels.shape[:2], dtype=np.bool_)
        if None not in self._ordinary:
            empty = (layer == value for layer, value in zip(layers, self._ordinary, strict=False))
            invalid |= reduce(np.logical_and, empty)
        for layer, value in zip(layers, self._telling, strict=False):
            if value is not None:
                invalid |= layer == value
            if np.issubdtype(layer.dtype, np.floating):
                invalid |= ~np.isfinite(layer)
        if self._declared is not None:
            invalid |= holds_nodata(pixels, self._declared)
        size = {"window": place, "out_shape": invalid.shape, "resampling": Resampling.nearest}
        if self._alpha is not None:
            invalid |= self._dataset.read(self._alpha, **size) <= 0
        for number in self._masks:
            invalid |= self._dataset.read_masks(number, **size) == 0
        return ~invalid if invalid.any() else None


def holds_nodata(pixels: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Tell which pixels are no data, given the value that means it.

    A value that measurements may take (0, or any of an unsigned type) must stand in all bands, another in any.

    Args:
        pixels: (h, w, bands) raw values.
        nodata: The value; NaN finds nothing, since NaN is never valid.

    Returns:
        (h, w), True where there is no data.
    """
    value = _as_read(nodata, str(pixels.dtype))
    if value is None:
        return np.zeros(pixels.shape[:2], dtype=np.bool_)
    bands = (pixels[:, :, band] == value for band in range(pixels.shape[2]))
    return reduce(np.logical_and if _ordinary(value) else np.logical_or, bands)


def _ordinary(value: Any) -> bool:
    """Whether a no-data value may be a measured one as well."""
    return bool(np.issubdtype(value.dtype, np.unsignedinteger) or value == 0)


def has_mask(flags: list[MaskFlags]) -> bool:
    """Whether a band has a mask that neither its values nor a transparency band tell."""
    return not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags) and flags != [MaskFlags.nodata]


def _as_read(nodata: float | None, dtype: str) -> Any:
    """Turn a no-data value into ``dtype``; None where no pixel can have it."""
    if nodata is None:
        return None
    number = np.dtype(dtype)
    if np.issubdtype(number, np.floating):
        with np.errstate(over="ignore"):  # a double's lowest value is no float32: it is read as -inf, never valid
            return number.type(nodata)
    limits = np.iinfo(number)
    if not limits.min <= nodata <= limits.max or nodata != int(nodata):
        return None  # NaN fails the comparison, too
    return number.type(int(nodata))


def fill_nodata(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Give every invalid pixel the values of the nearest valid one in its row or column, in place.

    Where a pixel's row and column hold no valid one, it takes what the nearest pixel of its row took; where nothing is
    valid at all, 0. So a network sees no edge where an image ends: the image goes on like a replicated border. What a
    pixel gets depends on what lies between it and its nearest valid pixel alone, and thus on the window only where that
    lies outside of it.

    Args:
        pixels: (h, w, bands).
        valid: (h, w).
    """
    if not valid.any():
        pixels[:] = 0
        return
    filled = valid.copy()
    # Every row meets a column with a valid pixel, so a second round reaches all.
    while not filled.all():
        rows, cols = np.nonzero(~filled)
        source_rows, down = _nearest(filled, rows, cols, axis=0)
        source_cols, across = _nearest(filled, rows, cols, axis=1)
        in_reach = np.minimum(down, across) < _FAR // 2
        by_row = across <= down
        source_rows, source_cols = np.where(by_row, rows, source_rows), np.where(by_row, source_cols, cols)
        pixels[rows[in_reach], cols[in_reach]] = pixels[source_rows[in_reach], source_cols[in_reach]]
        filled[rows[in_reach], cols[in_reach]] = True


def _nearest(
    filled: NDArray[np.bool_], rows: NDArray[np.intp], cols: NDArray[np.intp], *, axis: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the position along an axis of the filled pixel nearest to each of some pixels, and its distance."""
    positions = np.expand_dims(np.arange(filled.shape[axis], dtype=np.int32), 1 - axis)
    here = (rows, cols)[axis]
    before = np.maximum.accumulate(np.where(filled, positions, -_FAR), axis=axis)[rows, cols]
    reverse = np.flip(np.where(filled, positions, _FAR), axis)
    after = np.flip(np.minimum.accumulate(reverse, axis=axis), axis)[rows, cols]
    nearest = np.where(here - before <= after - here, before, after)
    return nearest, np.abs(here - nearest)
