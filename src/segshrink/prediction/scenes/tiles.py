"""Tiles of a scene: what is read at once, and blending them while they pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from segshrink.prediction.tiled import Tile, rows_of_tiles
from segshrink.tiling import Window, cosine_weights


@dataclass(frozen=True)
class Span:
    """Neighboring tiles of one row, which are read at once.

    Attributes:
        window: What is read: all that its tiles see.
        kept: All that its tiles decide.
        tiles: From left to right.
    """

    window: Window
    kept: Window
    tiles: tuple[Tile, ...]

    def batches(self, size: int) -> Iterator[tuple[Tile, ...]]:
        """Cut into runs of at most ``size`` tiles of one width."""
        for _, equal in groupby(self.tiles, key=lambda tile: tile.window.width):
            tiles = tuple(equal)
            for start in range(0, len(tiles), size):
                yield tiles[start : start + size]


def lay_out(
    height: int, width: int, *, tile: int, overlap: int, align: int, centered: bool, span_pixels: int
) -> Iterator[Span]:
    """Cut a scene into spans of tiles, row by row.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        tile: Side of a tile.
        overlap: Pixels that neighbors share.
        align: As ``tiling.grid`` takes it.
        centered: Whether a tile decides what lies nearer to its middle than to those of its neighbors. Otherwise it
            decides what no later tile sees: it must be added to what earlier ones said.
        span_pixels: About how many pixels are read at once.
    """
    for tiles in rows_of_tiles(height, width, tile=tile, overlap=overlap, align=align, centered=centered):
        most = max(1, span_pixels // (tiles[0].window.height * (tile - overlap)))
        at_once = -(-len(tiles) // -(-len(tiles) // most))  # spans of about equal length
        yield from (_span(tiles[start : start + at_once]) for start in range(0, len(tiles), at_once))


class Weights:
    """Cosine weights of all tiles of a scene, scaled so that they add up to 1 at every pixel.

    A grid's windows are made of pieces of rows and pieces of columns, and so are their weights.

    Args:
        windows: All windows of a scene.
        overlap: Pixels over which weights fall to a window's border.
    """

    def __init__(self, windows: Iterable[Window], *, overlap: int) -> None:
        rows, cols = set(), set()
        for window in windows:
            rows.add((window.row, window.height))
            cols.add((window.col, window.width))
        self._rows, self._cols = _shares(rows, overlap), _shares(cols, overlap)

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

    def __init__(self, channels: int, tiles: Iterable[Tile]) -> None:
        carried = width = 0
        for tile in tiles:
            carried = max(carried, tile.window.height - tile.kept.height)
            width = max(width, tile.window.col + tile.window.width)
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


def _span(tiles: Sequence[Tile]) -> Span:
    return Span(_around(tiles[0].window, tiles[-1].window), _around(tiles[0].kept, tiles[-1].kept), tuple(tiles))


def _around(first: Window, last: Window) -> Window:
    return Window(first.row, first.col, first.height, last.col + last.width - first.col)


def _shares(pieces: set[tuple[int, int]], overlap: int) -> dict[int, NDArray[np.float32]]:
    """Return start -> weights along one axis, which add up to 1 everywhere."""
    # A column of one pixel is a constant factor, which the sum takes out again.
    raw = {start: cosine_weights(length, 1, overlap=overlap)[:, 0] for start, length in pieces}
    totals = np.zeros(max(start + length for start, length in pieces), np.float32)
    for start, weights in raw.items():
        totals[start : start + len(weights)] += weights
    return {start: weights / totals[start : start + len(weights)] for start, weights in raw.items()}
