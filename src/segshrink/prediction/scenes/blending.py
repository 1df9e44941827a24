"""Blending overlapping tiles while they pass: what is finished goes out, only what later tiles see is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segshrink.prediction.tiled import Tile
from segshrink.tiling import Window, cosine_weights


class Weights:
    """Cosine weights of all tiles of a scene, scaled so that they add up to 1 at every pixel.

    A grid's windows are made of pieces of rows and pieces of columns, and so are their weights.

    Args:
        windows: All windows of a scene.
        overlap: Pixels over which weights fall to a window's border.
    """

    def __init__(self, windows: Sequence[Window], *, overlap: int) -> None:
        self._rows = _shares({(window.row, window.height) for window in windows}, overlap)
        self._cols = _shares({(window.col, window.width) for window in windows}, overlap)

    def __call__(self, window: Window) -> NDArray[np.float32]:
        """Return the (height, width) weights of one of the windows."""
        return np.outer(self._rows[window.row], self._cols[window.col])


class RollingBlend:
    """The weighted sum of overlapping tiles that come row by row from the left.

    A tile's ``kept`` part starts where the tile starts and ends where the next ones start, so it is finished when the
    tile is added. What later tiles see is carried to them: to the right a tile's height, down the rows that two rows of
    tiles share, over the scene's width. Nothing else is held, however high the scene is.

    Args:
        channels: Values a pixel.
        tiles: All tiles of the scene, in order.
    """

    def __init__(self, channels: int, tiles: Sequence[Tile]) -> None:
        carried = max(tile.window.height - tile.kept.height for tile in tiles)
        width = tiles[-1].window.col + tiles[-1].window.width
        self._below = np.zeros((channels, carried, width), np.float32)
        self._from_above = 0  # rows of _below that hold something
        self._right: NDArray[np.float32] | None = None

    def add(self, tile: Tile, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add a tile.

        Args:
            tile: The next one.
            values: (channels, h, w), multiplied by their weights already; changed.

        Returns:
            (channels, h, w) blended values of ``tile.kept``, a view of ``values``.
        """
        window, kept = tile.window, tile.kept
        first = 0  # column from which nothing was carried from the left
        if self._right is not None:
            first = self._right.shape[2]
            values[:, :, :first] += self._right
        end = window.col + window.width
        if self._from_above:
            values[:, : self._from_above, first:] += self._below[:, : self._from_above, window.col + first : end]
        down, right = window.height - kept.height, window.width - kept.width
        # These columns aren't looked at by tiles to the right any more.
        self._below[:, :down, kept.col : kept.col + kept.width] = values[:, kept.height :, : kept.width]
        self._right = values[:, :, kept.width :].copy() if right else None
        if end == self._below.shape[2]:
            self._from_above, self._right = down, None
        return values[:, : kept.height, : kept.width]


def _shares(pieces: set[tuple[int, int]], overlap: int) -> dict[int, NDArray[np.float32]]:
    """Return start -> weights along one axis, which add up to 1 everywhere."""
    # A column of one pixel is a constant factor, which the sum takes out again.
    raw = {start: cosine_weights(length, 1, overlap=overlap)[:, 0] for start, length in pieces}
    totals = np.zeros(max(start + length for start, length in pieces), np.float32)
    for start, weights in raw.items():
        totals[start : start + len(weights)] += weights
    return {start: weights / totals[start : start + len(weights)] for start, weights in raw.items()}
