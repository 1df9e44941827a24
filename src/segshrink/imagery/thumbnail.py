"""A small picture of a large scene with its classes, gathered while tiles pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.imagery.display import to_display
from segshrink.imagery.writing import write_overlay
from segshrink.tiling import Window

_SHOWN_BANDS = 3


class Thumbnail:
    """Every n-th pixel of a scene and of its class map; memory is that of the picture, whatever the scene's size.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        classes: Gives the colours.
        long_side: Pixels of the picture's longer side; a smaller scene is shown pixel by pixel.
    """

    def __init__(self, height: int, width: int, classes: ClassMap, *, long_side: int = 2048) -> None:
        if min(height, width, long_side) < 1:
            raise ValueError(f"scene and picture must have pixels, found {height} × {width} and {long_side}")
        shrink = min(1.0, long_side / max(height, width))
        self._rows = _centres(height, max(1, round(height * shrink)))
        self._cols = _centres(width, max(1, round(width * shrink)))
        self._classes = classes
        self._image: NDArray[Any] | None = None
        self._index = np.full((len(self._rows), len(self._cols)), IGNORE_INDEX, dtype=np.uint8)
        self._valid = np.zeros(self._index.shape, dtype=bool)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return len(self._rows), len(self._cols)

    def add(
        self, window: Window, pixels: NDArray[Any], index: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Take the picture's share of a window; windows may overlap and come in any order.

        Args:
            window: Where in the scene.
            pixels: (h, w, bands) of any numbers, the same in every window; the first three bands are shown.
            index: (h, w) class indices, 255 where there is none.
            valid: (h, w); False pixels are left plain white. None: those that have a class are valid.

        Raises:
            ValueError: The shapes don't match the window.
        """
        size = window.height, window.width
        if pixels.shape[:2] != size or index.shape != size or (valid is not None and valid.shape != size):
            raise ValueError(f"expected pixels and classes of {size}, found {pixels.shape[:2]} and {index.shape}")
        rows = _between(self._rows, window.row, window.height)
        cols = _between(self._cols, window.col, window.width)
        places = self._rows[rows] - window.row, self._cols[cols] - window.col
        if self._image is None:
            bands = min(_SHOWN_BANDS, pixels.shape[2])
            self._image = np.zeros((*self.shape, bands), dtype=pixels.dtype)
        seen = _taken(index, *places)
        self._image[rows, cols] = _taken(pixels, *places)[:, :, : self._image.shape[2]]
        self._index[rows, cols] = seen
        self._valid[rows, cols] = seen != IGNORE_INDEX if valid is None else _taken(valid, *places)

    def write(self, path: Path, *, opacity: float = 0.5) -> None:
        """Write the picture, JPEG or PNG by the suffix.

        Numbers other than uint8 are stretched between their 2nd and 98th percentile, nodata left out.

        Args:
            path: Where to.
            opacity: Share of the classes' colours, 0 to 1.

        Raises:
            FileError: The file can't be written, or the suffix is unknown.
        """
        image = np.zeros((*self.shape, 1), dtype=np.uint8) if self._image is None else self._image
        if image.dtype != np.uint8:
            image = np.where(self._valid[:, :, np.newaxis], image.astype(np.float32), np.float32(np.nan))
        shown = to_display(image)
        shown[~self._valid] = 255
        index = np.where(self._valid, self._index, np.uint8(IGNORE_INDEX))
        write_overlay(path, shown, index, self._classes, opacity=opacity)


def _centres(size: int, count: int) -> NDArray[np.intp]:
    """Return the pixels in the middle of ``count`` equal parts of ``size`` pixels."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)


def _taken(values: NDArray[Any], rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[Any]:
    """Return some rows and columns: four times as quick one after the other as both at once."""
    return values.take(rows, axis=0).take(cols, axis=1)


def _between(positions: NDArray[np.intp], start: int, length: int) -> slice:
    first, last = np.searchsorted(positions, (start, start + length))
    return slice(int(first), int(last))
