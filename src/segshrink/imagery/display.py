"""Showing images of any bands and numbers on a screen, with classes over them, whole or as a thumbnail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError
from segshrink.imagery.writing import write_image
from segshrink.tiling import Window

# Pixels that percentiles are taken from; more don't change them visibly.
_SAMPLE = 1_000_000
_SHOWN_BANDS = 3
_ROWS_AT_ONCE = 32  # of pictures that are mixed: small enough to stay in the processor's cache


def to_display(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn an image into colors for a screen.

    Args:
        image: (H, W, bands) or (H, W) of any numbers.

    Returns:
        (H, W, 3) uint8: the first three bands, or the first one three times. uint8 stays as it is; of other numbers
        each band is stretched so that its 2nd to 98th percentile fill 0 to 255. NaN and infinity become black.
    """
    image = image[:, :, np.newaxis] if image.ndim == 2 else image
    bands = image[:, :, : _SHOWN_BANDS if image.shape[2] >= _SHOWN_BANDS else 1]
    if bands.dtype == np.bool_:
        bands = bands.astype(np.uint8) * np.uint8(255)
    if bands.dtype != np.uint8:
        bands = np.stack([_stretched(bands[:, :, band]) for band in range(bands.shape[2])], axis=2)
    return np.ascontiguousarray(bands if bands.shape[2] > 1 else np.repeat(bands, _SHOWN_BANDS, axis=2))


def write_overlay(
    path: Path, image: NDArray[Any], index: NDArray[np.uint8], classes: ClassMap, *, opacity: float = 0.5
) -> None:
    """Write an image with the classes' colors laid over it; ignored pixels show the bare image.

    Args:
        path: Where to; PNG, JPEG, BMP or TIFF by its suffix.
        image: (H, W, bands) of any numbers.
        index: (H, W) class indices.
        classes: Gives the colors.
        opacity: Share of the color, 0 to 1.

    Raises:
        DataError: Image and index differ in size.
        FileError: The file can't be written, or the suffix is unknown.
    """
    if image.shape[:2] != index.shape:
        raise DataError(f"an overlay needs image and classes of one size, found {image.shape[:2]} and {index.shape}")
    write_image(path, overlaid(to_display(image), index, classes, opacity=opacity))


def overlaid(
    shown: NDArray[np.uint8], index: NDArray[np.uint8], classes: ClassMap, *, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Return colors (H, W, 3) with those of the classes of ``index`` (H, W) laid over them; see ``write_overlay``."""
    mixed = np.empty_like(shown)
    for start in range(0, len(shown), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        colors = classes.colorize(index[rows]) * np.float32(opacity)
        mixed[rows] = np.rint(shown[rows] * np.float32(1 - opacity) + colors)
    np.copyto(mixed, shown, where=(index == IGNORE_INDEX)[:, :, np.newaxis])
    return mixed


class Thumbnail:
    """Every n-th pixel of a scene and of its class map; memory is that of the picture, whatever the scene's size.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        classes: Gives the colors.
        long_side: Pixels of the picture's longer side; a smaller scene is shown pixel by pixel.
    """

    def __init__(self, height: int, width: int, classes: ClassMap, *, long_side: int = 2048) -> None:
        shrink = min(1.0, long_side / max(height, width))
        # The pixels in the middle of equal parts of the scene.
        self._rows, self._cols = (
            ((np.arange(count) + 0.5) * size / count).astype(np.intp)
            for size, count in ((size, max(1, round(size * shrink))) for size in (height, width))
        )
        self._classes = classes
        self._image: NDArray[Any] | None = None
        self._index = np.full((len(self._rows), len(self._cols)), IGNORE_INDEX, dtype=np.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return len(self._rows), len(self._cols)

    def add(self, window: Window, pixels: NDArray[Any], index: NDArray[np.uint8]) -> None:
        """Take the picture's share of a window; windows may overlap and come in any order.

        Args:
            window: Where in the scene.
            pixels: (h, w, bands) of any numbers, the same in every window; the first three bands are shown.
            index: (h, w) class indices, 255 where there is none: such pixels are plain white.

        Raises:
            ValueError: The shapes don't match the window.
        """
        size = window.height, window.width
        if pixels.shape[:2] != size or index.shape != size:
            raise ValueError(f"expected pixels and classes of {size}, found {pixels.shape[:2]} and {index.shape}")
        rows = slice(*np.searchsorted(self._rows, (window.row, window.row + window.height)))
        cols = slice(*np.searchsorted(self._cols, (window.col, window.col + window.width)))
        if self._image is None:
            self._image = np.zeros((*self.shape, min(_SHOWN_BANDS, pixels.shape[2])), dtype=pixels.dtype)
        for picture, values in ((self._image, pixels[:, :, :_SHOWN_BANDS]), (self._index, index)):
            # Rows and columns one after the other are taken four times as quickly as both at once.
            taken = values.take(self._rows[rows] - window.row, axis=0)
            picture[rows, cols] = taken.take(self._cols[cols] - window.col, axis=1)

    def write(self, path: Path, *, opacity: float = 0.5) -> None:
        """Write the picture, JPEG or PNG by the suffix.

        Numbers other than uint8 are stretched between their 2nd and 98th percentile, nodata left out.

        Args:
            path: Where to.
            opacity: Share of the classes' colors, 0 to 1.

        Raises:
            FileError: The file can't be written, or the suffix is unknown.
        """
        valid = self._index != IGNORE_INDEX
        image = np.zeros((*self.shape, 1), dtype=np.uint8) if self._image is None else self._image
        if image.dtype != np.uint8:
            image = np.where(valid[:, :, np.newaxis], image.astype(np.float32), np.float32(np.nan))
        shown = to_display(image)
        shown[~valid] = 255
        write_overlay(path, shown, self._index, self._classes, opacity=opacity)


def _stretched(band: NDArray[Any]) -> NDArray[np.uint8]:
    values = band.astype(np.float32)
    step = max(1, int(np.sqrt(values.size / _SAMPLE)))
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.zeros(band.shape, dtype=np.uint8)
    low, high = np.percentile(sample, (2, 98)).astype(np.float32)
    if high <= low:
        low, high = sample.min(), sample.max()
    scale = 255 / (high - low) if high > low else 0.0
    stretched = np.clip((np.where(np.isfinite(values), values, low) - low) * np.float32(scale), 0, 255)
    return np.asarray(np.rint(stretched).astype(np.uint8))
