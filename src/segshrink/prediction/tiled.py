"""Whole images by overlapping tiles: how they are cut, and how the answers about tiles become one.

Scenes, evaluations and teachers use these tiles alike, so that what is evaluated is what is deployed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, groupby, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import UsageError
from segshrink.model_description import ModelDescription
from segshrink.tiling import Blend, Window, cosine_weights, grid
from segshrink.working_size import depends_on_image, in_words, pixels_of_stride, zoom

TILE, OVERLAP = 512, 64
# Side of a tile that holds any image.
WHOLE = 1 << 30
# A network's stride times this is shared by neighboring tiles: half of it lies around each pixel that is kept.
_STRIDES_SHARED = 4

Blending = Literal["center", "cosine"]


@dataclass(frozen=True)
class Tile:
    """A window that the model sees, and the part of the image that is decided once it has been seen.

    Attributes:
        window: What the model sees.
        kept: What is decided with this tile; those of all tiles make up the image, and none overlap. Inside ``window``.
    """

    window: Window
    kept: Window


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbors share.
        stride: The last row and column of tiles start at multiples of it, as ``tiling.grid`` aligns them.
        batch: Tiles that the model gets at once, at most.

    Raises:
        UsageError: A number makes no sense.
    """

    tile: int
    overlap: int
    stride: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        if min(self.tile, self.batch) < 1 or not 0 <= self.overlap < self.tile:
            raise UsageError(
                f"tile {self.tile}, overlap {self.overlap}, batch {self.batch}: tile and batch must be at least 1 and "
                "overlap must lie between 0 and tile - 1"
            )


def choose_tiling(
    description: ModelDescription | None,
    *,
    runtime: str,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
) -> Tiling:
    """Fill in what is left to the model.

    Args:
        description: The model's, which has the network's stride and working size; None: unknown.
        runtime: What runs it.
        tile: Side of a tile in pixels; None: 512 at the working size, rounded up to the stride; the whole image where
            only that says what the working size is.
        overlap: Pixels that neighbors share; None: four strides, at least 64 at the working size and at most half a
            tile.
        batch: Tiles at once; None: 4 in torch, else 1.

    Raises:
        UsageError: A number makes no sense, or the model takes no tiles.
    """
    resize = None if description is None else description.resize
    if depends_on_image(resize):
        if tile not in (None, WHOLE) or overlap:
            raise UsageError(f"the model works at {in_words(resize)}, so it takes no tiles; leave tile and overlap out")
        return Tiling(WHOLE, 0)
    of_network, scale = 1 if description is None else description.stride, zoom(resize)
    stride = pixels_of_stride(resize, of_network)
    if stride > TILE / scale:  # an odd share, which no tile fits
        stride = 1
    if tile is None:
        tile = math.ceil(TILE / scale / stride) * stride
    if overlap is None:
        least = max(OVERLAP, _STRIDES_SHARED * of_network)
        overlap = min(math.ceil(least / scale / stride) * stride, tile // 2)
    if batch is None:
        batch = 4 if runtime.startswith("torch") else 1
    return Tiling(tile, overlap, stride if tile % stride == overlap % stride == 0 else 1, batch)


def rows_of_tiles(
    height: int, width: int, *, tile: int | tuple[int, int], overlap: int, align: int = 1, centered: bool = True
) -> Iterator[tuple[Tile, ...]]:
    """Cut an image into tiles, row by row from the top left; no more than a row is held.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        tile: As ``tiling.grid`` takes it.
        overlap: As ``tiling.grid`` takes it.
        align: As ``tiling.grid`` takes it.
        centered: Whether a tile decides what lies nearer to its middle than to those of its neighbors. Otherwise it
            decides what no later tile sees: it must be added to what earlier ones said.
    """
    cut = partial(grid, tile=tile, overlap=overlap, align=align)
    rows = [(window.row, window.height) for window in cut(height, 1)]
    cols = [(window.col, window.width) for window in cut(1, width)]
    downs, rights = _edges(rows, height, centered=centered), _edges(cols, width, centered=centered)
    for (row, tall), (top, bottom) in zip(rows, pairwise(downs), strict=True):
        yield tuple(
            Tile(Window(row, col, tall, wide), Window(top, left, bottom - top, right - left))
            for (col, wide), (left, right) in zip(cols, pairwise(rights), strict=True)
        )


def predict_tiles(
    image: NDArray[Any],
    answer: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    tile: int | tuple[int, int],
    overlap: int,
    align: int = 1,
    batch: int = 1,
    blend: Blending = "center",
) -> NDArray[Any]:
    """Return the answer (C, H, W) about an image; one that fits into a tile is given to the model as it is.

    Args:
        image: (H, W, bands) pixels.
        answer: Runs the model: (n, h, w, bands) pixels to (n, C, h, w) logits, or with "center" anything else.
        tile: As ``tiling.grid`` takes it.
        overlap: As ``tiling.grid`` takes it.
        align: As ``tiling.grid`` takes it.
        batch: Tiles that the model gets at once, at most.
        blend: "center": each pixel from the tile whose middle is nearest; "cosine": the average of overlapping tiles
            under weights that fall to the tiles' borders.
    """
    height, width = image.shape[:2]
    rows = rows_of_tiles(height, width, tile=tile, overlap=overlap, align=align)
    tiles = [each for row in rows for each in row]
    if len(tiles) == 1:
        (whole,) = answer(image[np.newaxis])
        return np.asarray(whole)
    answers = _answers(image, tiles, answer, batch)
    first = next(answers)
    channels, answers = len(first[1]), chain([first], answers)
    if blend == "cosine":
        weights = cache(partial(cosine_weights, overlap=overlap))
        average = Blend(channels, height, width)
        for each, logits in answers:
            average.add(logits, each.window, weights(each.window.height, each.window.width))
        return average.result()
    nearest = np.empty((channels, height, width), first[1].dtype)
    for each, values in answers:
        nearest[:, *each.kept.slices] = values[:, *each.kept.slices_in(each.window)]
    return nearest


def _answers(
    image: NDArray[Any], tiles: Sequence[Tile], answer: Callable[[NDArray[Any]], NDArray[Any]], batch: int
) -> Iterator[tuple[Tile, NDArray[Any]]]:
    """Yield tiles with the answers (C, h, w) about them; those of one size go to the model together."""
    for _, equal in groupby(tiles, key=lambda tile: (tile.window.height, tile.window.width)):
        group = list(equal)
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            yield from zip(part, answer(np.stack([image[tile.window.slices] for tile in part])), strict=True)


def _edges(pieces: Sequence[tuple[int, int]], size: int, *, centered: bool) -> list[int]:
    """Return where along one axis the decision passes from one tile to the next, with both ends."""
    between = [
        (start + previous + length + 1) // 2 if centered else start
        for (previous, length), (start, _) in pairwise(pieces)
    ]
    return [0, *between, size]
