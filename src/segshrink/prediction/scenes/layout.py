"""Which tiles a scene is cut into, what is read at once, and which pixels each tile decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from segshrink.tiling import Window, grid


@dataclass(frozen=True)
class Tile:
    """A window that the model sees, and the part of the scene that is written once it has been seen.

    Attributes:
        window: What the model sees.
        kept: What is decided with this tile; those of all tiles make up the scene, and none overlap. Inside ``window``.
    """

    window: Window
    kept: Window


@dataclass(frozen=True)
class Span:
    """Neighbouring tiles of one row, which are read at once.

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
    height: int, width: int, *, tile: int, overlap: int, align: int, centred: bool, span_pixels: int
) -> list[Span]:
    """Cut a scene into spans of tiles, row by row.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        tile: Side of a tile.
        overlap: Pixels that neighbours share.
        align: As ``tiling.grid`` takes it.
        centred: Whether a tile decides what lies nearer to its middle than to those of its neighbours. Otherwise it
            decides what no later tile sees: it must be added to what earlier ones said.
        span_pixels: About how many pixels are read at once.
    """
    windows = grid(height, width, tile=tile, overlap=overlap, align=align)
    rows = [list(row) for _, row in groupby(windows, key=lambda window: window.row)]
    downs = _edges([(row[0].row, row[0].height) for row in rows], height, centred=centred)
    rights = _edges([(window.col, window.width) for window in rows[0]], width, centred=centred)
    spans = []
    for row, (top, bottom) in zip(rows, pairwise(downs), strict=True):
        tiles = [
            Tile(window, Window(top, left, bottom - top, right - left))
            for window, (left, right) in zip(row, pairwise(rights), strict=True)
        ]
        most = max(1, span_pixels // (row[0].height * (tile - overlap)))
        at_once = -(-len(tiles) // -(-len(tiles) // most))  # spans of about equal length
        spans += [_span(tiles[start : start + at_once]) for start in range(0, len(tiles), at_once)]
    return spans


def _span(tiles: Sequence[Tile]) -> Span:
    return Span(_around(tiles[0].window, tiles[-1].window), _around(tiles[0].kept, tiles[-1].kept), tuple(tiles))


def _around(first: Window, last: Window) -> Window:
    return Window(first.row, first.col, first.height, last.col + last.width - first.col)


def _edges(pieces: Sequence[tuple[int, int]], size: int, *, centred: bool) -> list[int]:
    """Return where along one axis the decision passes from one tile to the next, with both ends."""
    between = [
        (start + previous + length + 1) // 2 if centred else start
        for (previous, length), (start, _) in pairwise(pieces)
    ]
    return [0, *between, size]
