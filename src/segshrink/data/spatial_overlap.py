"""Which images show the same ground: by the numbers in names of map tiles, at any zoom, and by coordinates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from segshrink.imagery import Georeference

# Zooms of which images are labeled: from 38 m a pixel to 5 mm, with tiles of 256 pixels.
_ZOOMS = range(12, 26)
# Numbers of a tile count from 180° west and 85° north. Small ones are rather those of a grid: nobody lives there.
_SMALLEST = 1 / 64
# Of the smaller image's ground: less may be the margin of neighbors.
_LEAST_SHARED = 0.05
_NUMBERS = re.compile(r"(?<!\d)(\d{1,8})[-_/](\d{1,8})[-_/](\d{1,8})$")

Thing = TypeVar("Thing", bound=Hashable)


class _Tile(NamedTuple):
    zoom: int
    x: int
    y: int

    def plausible(self) -> bool:
        """Whether such a tile shows a place where something is to be seen."""
        side = 1 << self.zoom if self.zoom in _ZOOMS else 0
        return all(_SMALLEST * side <= number < side for number in (self.x, self.y))

    def above(self, zoom: int) -> _Tile:
        """Return the tile of a lower zoom that holds it."""
        return _Tile(zoom, self.x >> (self.zoom - zoom), self.y >> (self.zoom - zoom))


def overlapping_tiles(images: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the positions of images that show some of the same ground, for each piece of ground.

    Understood are names that end in column, row and zoom, as those of OpenAerialMap's tiles do, or in zoom, column and
    row, also as folders: the numbers of web maps' tiles, from the north or from the south.

    Args:
        images: Paths of all images, "/" between folders.

    Returns:
        Ascending positions, two at least in each; nothing where one name is no tile's, or no two show the same.

    Example:
        >>> overlapping_tiles(["1263512-1056200-21.jpg", "315878-264050-19.jpg", "315879-264050-19.jpg"])
        [(0, 1)]
    """
    found = [_NUMBERS.search(str(PurePosixPath(image).with_suffix(""))) for image in images]
    numbers = [tuple(map(int, each.groups())) for each in found if each]
    for tiles in ([_Tile(z, x, y) for x, y, z in numbers], [_Tile(*each) for each in numbers]):
        if len(tiles) == len(images) and all(tile.plausible() for tile in tiles):
            return _together(tiles)
    return []


def overlapping_footprints(
    here: Mapping[str, Georeference], there: Mapping[str, Georeference]
) -> list[tuple[str, str, float]]:
    """Return pairs of images that show some of the same ground, and which share of the smaller one, the largest first.

    Compared are images in one coordinate reference system whose grids aren't rotated.

    Args:
        here: Image → where it lies.
        there: Those that it is compared with.

    Returns:
        (image of ``here``, image of ``there``, share from 0.05 to 1).
    """
    pairs, names = [], list(there)
    (crs_here, boxes_here), (crs_there, boxes_there) = _boxes(here), _boxes(there)
    for name, crs, (left, bottom, right, top) in zip(here, crs_here, boxes_here, strict=True):
        width = np.minimum(right, boxes_there[:, 2]) - np.maximum(left, boxes_there[:, 0])
        height = np.minimum(top, boxes_there[:, 3]) - np.maximum(bottom, boxes_there[:, 1])
        areas = (boxes_there[:, 2] - boxes_there[:, 0]) * (boxes_there[:, 3] - boxes_there[:, 1])
        shares = width.clip(0) * height.clip(0) / np.minimum(areas, (right - left) * (top - bottom))
        alike = (number for number in np.flatnonzero(shares >= _LEAST_SHARED) if crs_there[number] == crs)
        pairs += [(name, names[number], float(shares[number])) for number in alike]
    return sorted(pairs, key=lambda pair: -pair[2])


def _boxes(places: Mapping[str, Georeference]) -> tuple[list[str | None], NDArray[np.float64]]:
    """Return the reference systems of images and (N, 4) left, bottom, right, top; NaN where they aren't known."""
    boxes = np.full((len(places), 4), np.nan)
    for box, place in zip(boxes, places.values(), strict=True):
        if place.crs is not None and place.transform is not None and not (place.transform[1] or place.transform[3]):
            a, _, c, _, e, f = place.transform
            (left, right), (bottom, top) = sorted((c, c + a * place.width)), sorted((f, f + e * place.height))
            box[:] = left, bottom, right, top
    return [place.crs for place in places.values()], boxes


def connected_components(things: Sequence[Thing], together: Iterable[Iterable[Thing]]) -> list[list[Thing]]:
    """Divide things so that those which belong together, be it by way of others, are in one part; order is kept.

    Example:
        >>> connected_components(["a", "b", "c", "d"], [["a", "c"], ["d", "c", "x"]])
        [['a', 'c', 'd'], ['b']]
    """
    part = {thing: [thing] for thing in things}
    for held in together:
        touched = {id(part[thing]): part[thing] for thing in held if thing in part}
        if len(touched) > 1:
            whole = [thing for each in touched.values() for thing in each]
            part |= dict.fromkeys(whole, whole)
    place = {thing: number for number, thing in enumerate(part)}
    return [sorted(each, key=place.__getitem__) for each in {id(each): each for each in part.values()}.values()]


def _together(tiles: Sequence[_Tile]) -> list[tuple[int, ...]]:
    zooms, there = sorted({tile.zoom for tile in tiles}), set(tiles)
    pieces: dict[_Tile, list[int]] = defaultdict(list)
    for position, tile in enumerate(tiles):
        holding = (tile.above(zoom) for zoom in zooms if zoom <= tile.zoom)
        pieces[next(each for each in holding if each in there)].append(position)
    return [tuple(held) for held in pieces.values() if len(held) > 1]
