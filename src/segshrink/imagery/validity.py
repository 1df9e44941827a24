"""Which pixels of a raster have a value (transparency, masks, no-data values, NaN), and filling the others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window

from segshrink.imagery.bands import Bands

_FAR = np.int32(1 << 29)


@dataclass(frozen=True)
class Validity:
    """What makes pixels of some bands invalid.

    A pixel is invalid where the file's mask or transparency band is 0, where a value is NaN or infinite, and where it
    is no-data. 0, and any number of a type without sign, are ordinary values as well (a dark pixel's blue may be 0):
    with such a no-data value a pixel is invalid only if all chosen bands have it. One that no measurement takes, such
    as -9999, makes a pixel invalid in any band. A transparency band that is itself among the chosen ones may be a
    measured one (writers mark a fourth band unasked): its pixels are invalid where all chosen bands are 0.

    Attributes:
        masks: Bands in the file whose masks GDAL is asked for.
        alpha: The file's transparency band, where it isn't chosen; None without one.
        ordinary: Per chosen band, the no-data value that may be an ordinary one; None where a band has none.
        telling: Per chosen band, the no-data value that is never an ordinary one; None where a band has none.
        floating: Whether values may be NaN.
        declared: A no-data value that the user declares beside the file's own; None without one.
    """

    masks: tuple[int, ...]
    alpha: int | None
    ordinary: tuple[Any, ...]
    telling: tuple[Any, ...]
    floating: bool
    declared: float | None = None

    @classmethod
    def of(cls, dataset: Any, bands: Bands, dtype: str, *, declared: float | None = None) -> Validity:
        """Find what an open rasterio dataset says about some bands that are read as ``dtype``."""
        masked = [number for number in bands.numbers if has_mask(dataset.mask_flag_enums[number - 1])]
        if any(MaskFlags.per_dataset in dataset.mask_flag_enums[number - 1] for number in masked):
            masked = masked[:1]
        values = [_as_read(dataset.nodatavals[number - 1], dtype) for number in bands.numbers]
        alpha = bands.alpha
        if alpha in bands.numbers:
            alpha = None
            values = [np.dtype(dtype).type(0) if value is None else value for value in values]
        common = [value is not None and _ordinary(value) for value in values]
        return cls(
            masks=tuple(dict.fromkeys(masked)),
            alpha=alpha,
            ordinary=tuple(value if also else None for value, also in zip(values, common, strict=True)),
            telling=tuple(None if also else value for value, also in zip(values, common, strict=True)),
            floating=bool(np.issubdtype(np.dtype(dtype), np.floating)),
            declared=declared,
        )

    @property
    def trivial(self) -> bool:
        """Whether all pixels are valid without a look."""
        nodata = any(value is not None for value in (*self.ordinary, *self.telling, self.declared))
        return not (self.masks or self.alpha or nodata or self.floating)

    def of_window(self, dataset: Any, pixels: NDArray[Any], place: Window) -> NDArray[np.bool_] | None:
        """Tell which pixels of a window are valid.

        Args:
            dataset: The open dataset.
            pixels: (h, w, bands) values that were read from it.
            place: The window in pixels of the dataset.

        Returns:
            (h, w), or None when all are valid.
        """
        if self.trivial:
            return None
        valid = np.ones(pixels.shape[:2], dtype=np.bool_)
        if None not in self.ordinary:
            empty = pixels[:, :, 0] == self.ordinary[0]
            for band, value in enumerate(self.ordinary[1:], start=1):
                empty &= pixels[:, :, band] == value
            np.logical_not(empty, out=valid)
        for band, value in enumerate(self.telling):
            if value is not None and not np.isnan(value):
                valid &= pixels[:, :, band] != value
        if self.floating:
            for band in range(pixels.shape[2]):
                valid &= np.isfinite(pixels[:, :, band])
        if self.declared is not None:
            valid &= ~holds_nodata(pixels, self.declared)
        size = {"window": place, "out_shape": valid.shape, "resampling": Resampling.nearest}
        if self.alpha is not None:
            valid &= dataset.read(self.alpha, **size) > 0
        for number in self.masks:
            valid &= dataset.read_masks(number, **size) > 0
        return None if valid.all() else valid


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
