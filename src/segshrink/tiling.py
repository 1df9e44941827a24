"""Cutting an image into overlapping windows of one size, and blending what was computed on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels; ``row`` and ``col`` are its upper left corner."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices: ``image[window.slices]`` is the window's part of an (H, W, ...) array."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    def slices_in(self, whole: Window) -> tuple[slice, slice]:
        """Return the row and column slices of this window's part of an array of another window around it."""
        row, col = self.row - whole.row, self.col - whole.col
        return slice(row, row + self.height), slice(col, col + self.width)


def grid(height: int, width: int, *, tile: int | tuple[int, int], overlap: int, align: int = 1) -> list[Window]:
    """Cover an image with windows of equal size.

    Windows are at most ``tile`` and at most the image high and wide, and overlap by at least ``overlap`` pixels (0 when
    one window spans the image). The last row and column are shifted inward rather than padded.

    Args:
        height: Image height in pixels, at least 1.
        width: Image width in pixels, at least 1.
        tile: Side of a window in pixels, or its height and width.
        overlap: Pixels that neighbors share, less than ``tile``.
        align: The last row and column start at a multiple of this many pixels, and are larger by what is then missing.
            A network of this stride, on a tile and overlap that are multiples of it, gives on the windows what it gives
            on the whole image.

    Returns:
        Windows from the top left, row by row.

    Raises:
        ValueError: A size below 1 or an overlap that isn't between 0 and ``tile - 1``.

    Example:
        >>> [window.col for window in grid(512, 1000, tile=512, overlap=16)]
        [0, 488]
    """
    tall, wide = (tile, tile) if isinstance(tile, int) else tile
    if min(height, width, tall, wide) < 1:
        raise ValueError(f"image and tile must be at least 1 pixel, found {height} × {width} and tile {tile}")
    if not 0 <= overlap < min(tall, wide):
        raise ValueError(f"overlap must be at least 0 and less than the tile of {tile} pixels, found {overlap}")
    rows = _pieces(height, tall, overlap, align)
    cols = _pieces(width, wide, overlap, align)
    return [Window(row, col, tall, wide) for row, tall in rows for col, wide in cols]


def cosine_weights(height: int, width: int, *, overlap: int) -> NDArray[np.float32]:
    """Return (height, width) weights in (0, 1] that fall to the borders along a squared cosine of ``overlap`` pixels.

    Where two neighbors share exactly ``overlap`` pixels and ``2 * overlap`` fits into a window, their weights add up
    to 1.
    """
    return np.outer(_ramp(height, overlap), _ramp(width, overlap)).astype(np.float32)


class Blend:
    """Weighted mean of overlapping windows, accumulated one window at a time.

    Holds (channels + 1) float32 values a pixel and nothing else of the image's size.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self._sums = np.zeros((channels, height, width), dtype=np.float32)
        self._totals: NDArray[np.float32] | None = np.zeros((height, width), dtype=np.float32)

    def add(self, values: NDArray[np.floating], window: Window, weights: NDArray[np.float32]) -> None:
        """Add a window's ``values`` (channels, h, w), weighted by ``weights`` (h, w) > 0.

        Raises:
            ValueError: The shapes don't match the window, or ``result`` was already taken.
        """
        if self._totals is None:
            raise ValueError("the result was taken; start a new Blend")
        expected = (len(self._sums), window.height, window.width)
        if values.shape != expected or weights.shape != expected[1:]:
            raise ValueError(
                f"expected values {expected} and weights {expected[1:]}, found {values.shape} and {weights.shape}"
            )
        rows, cols = window.slices
        self._sums[:, rows, cols] += values * weights
        self._totals[rows, cols] += weights

    def result(self) -> NDArray[np.float32]:
        """Return the (channels, H, W) weighted mean; it reuses the accumulator's memory, so nothing can be added after.

        Raises:
            ValueError: A pixel was covered by no window.
        """
        if self._totals is not None:
            if not bool((self._totals > 0).all()):
                raise ValueError("some pixels were covered by no window")
            self._sums /= self._totals
            self._totals = None
        return self._sums


def _pieces(size: int, tile: int, overlap: int, align: int) -> list[tuple[int, int]]:
    """Return starts and lengths along one axis."""
    if size <= tile:
        return [(0, size)]
    step = tile - overlap
    last = (size - tile) // align * align
    count = -(-(size - overlap) // step)
    starts = [number * step for number in range(count - 1) if number * step < last]
    return [*((start, tile) for start in starts), (last, size - last)]


def _ramp(size: int, overlap: int) -> NDArray[np.float64]:
    position = np.arange(size) + 0.5
    inward = np.minimum(position, size - position)
    if overlap < 1:
        return np.ones(size)
    weights: NDArray[np.float64] = np.sin(np.pi / 2 * np.minimum(inward / overlap, 1.0)) ** 2
    return weights
