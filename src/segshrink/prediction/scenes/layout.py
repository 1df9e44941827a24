"""Which tiles a scene is cut into, and what is read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from segshrink.prediction.tiled import Tile, rows_of_tiles
from segshrink.tiling import Window


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
    spans = []
    for tiles in rows_of_tiles(height, width, tile=tile, overlap=overlap, align=align, centered=centred):
        most = max(1, span_pixels // (tiles[0].window.height * (tile - overlap)))
        at_once = -(-len(tiles) // -(-len(tiles) // most))  # spans of about equal length
        spans += [_span(tiles[start : start + at_once]) for start in range(0, len(tiles), at_once)]
    return spans


def _span(tiles: Sequence[Tile]) -> Span:
    return Span(_around(tiles[0].window, tiles[-1].window), _around(tiles[0].kept, tiles[-1].kept), tuple(tiles))


def _around(first: Window, last: Window) -> Window:
    return Window(first.row, first.col, first.height, last.col + last.width - first.col)
