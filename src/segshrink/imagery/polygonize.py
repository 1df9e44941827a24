"""Connected regions of a class map as polygons, traced strip by strip and joined across the strips' borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine

from segshrink.classes import IGNORE_INDEX

_NO_REGION = -1


@dataclass(frozen=True)
class Strip:
    """Some rows of a class map.

    Attributes:
        row: Number of the first row.
        index: (h, W) class indices, 255 where there is none.
        confidence: (h, W) numbers, masked where unknown; None when there are none.
    """

    row: int
    index: NDArray[np.uint8]
    confidence: np.ma.MaskedArray[Any, Any] | None = None


@dataclass(frozen=True)
class Regions:
    """Connected regions (pixels with a common edge) of one class each, or pieces of regions.

    Attributes:
        polygons: (n,) shapely polygons in pixels: x is the column, y the row, of pixels' corners.
        classes: (n,) class indices.
        totals: (n,) sum of the confidence over a region's pixels.
        counts: (n,) number of its pixels whose confidence is known.
    """

    polygons: NDArray[Any]
    classes: NDArray[np.int64]
    totals: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, chosen: Any) -> Regions:
        return Regions(self.polygons[chosen], self.classes[chosen], self.totals[chosen], self.counts[chosen])

    @classmethod
    def joined(cls, parts: Sequence[Regions]) -> Regions:
        """Put several together."""
        return cls(
            np.concatenate([np.empty(0, dtype=object), *(part.polygons for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.classes for part in parts)]),
            np.concatenate([np.empty(0), *(part.totals for part in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.counts for part in parts)]),
        )


def find_regions(strips: Iterable[Strip]) -> Iterator[Regions]:
    """Find the regions of a class map.

    A region comes when a strip that it doesn't reach was read; only those that reach the last strip's lower border are
    held, so memory is that of a strip and of the regions that are still growing.

    Args:
        strips: All rows in order.
    """
    pieces = Regions.joined([])
    parents = np.empty(0, dtype=np.int64)  # of each piece another piece of its region, or itself
    lower_pieces = lower_classes = np.empty(0, dtype=np.int64)  # at the lower border of the strip before, by column
    for strip in strips:
        traced, labels = _trace(strip)
        held = len(pieces)
        pieces = Regions.joined([pieces, traced])
        labels[labels != _NO_REGION] += held
        parents = np.append(parents, np.arange(held, len(pieces)))
        if held:
            meet = (lower_pieces != _NO_REGION) & (labels[0] != _NO_REGION) & (lower_classes == strip.index[0])
            _link(parents, np.unique(np.stack([lower_pieces[meet], labels[0][meet]]), axis=1))
        touching = np.unique(labels[-1])
        growing = np.isin(parents, parents[touching[touching != _NO_REGION]])
        yield united(pieces[~growing], parents[~growing])
        numbers = np.append(np.where(growing, np.cumsum(growing) - 1, _NO_REGION), _NO_REGION)
        lower_pieces, lower_classes = numbers[labels[-1]], strip.index[-1].astype(np.int64)
        _, firsts, inverse = np.unique(parents[growing], return_index=True, return_inverse=True)
        pieces, parents = pieces[growing], firsts[inverse]
    yield united(pieces, parents)


def united(pieces: Regions, region_of: NDArray[np.int64]) -> Regions:
    """Make one region of the pieces that have the same number; pieces of a region share edges and don't overlap."""
    import shapely

    _, firsts, inverse, sizes = np.unique(region_of, return_index=True, return_inverse=True, return_counts=True)
    polygons = pieces.polygons[firsts]
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(sizes)
    for number in np.flatnonzero(sizes > 1):
        parts = pieces.polygons[order[ends[number] - sizes[number] : ends[number]]]
        # Tolerance 0 removes the corners that the polygon runs straight through.
        polygons[number] = shapely.simplify(shapely.union_all(parts), 0, preserve_topology=False)
    return Regions(
        polygons,
        pieces.classes[firsts],
        np.bincount(inverse, weights=pieces.totals, minlength=len(firsts)).astype(np.float64),
        np.bincount(inverse, weights=pieces.counts, minlength=len(firsts)).astype(np.int64),
    )


def _trace(strip: Strip) -> tuple[Regions, NDArray[np.int32]]:
    """Return the regions of a strip, and of each pixel the number of its region, -1 where there is none."""
    import shapely

    place = Affine.translation(0, strip.row)
    traced = list(features.shapes(strip.index, mask=strip.index != IGNORE_INDEX, connectivity=4, transform=place))
    shapes = [shape for shape, _ in traced]
    rings = [ring for shape in shapes for ring in shape["coordinates"]]
    points = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), dtype=np.float64).reshape(-1, 2)
    lines = shapely.linearrings(points, indices=np.repeat(np.arange(len(rings)), [len(ring) for ring in rings]))
    owners = np.repeat(np.arange(len(shapes)), [len(shape["coordinates"]) for shape in shapes])
    labels = np.full(strip.index.shape, _NO_REGION, dtype=np.int32)
    if shapes:  # rasterio refuses to draw nothing
        features.rasterize(zip(shapes, range(len(shapes)), strict=True), out=labels, transform=place)
    known = labels != _NO_REGION
    totals = np.zeros(len(shapes))
    if strip.confidence is not None:
        known &= ~np.ma.getmaskarray(strip.confidence)
        weights = strip.confidence.data[known]
        totals = np.bincount(labels[known], weights=weights, minlength=len(shapes)).astype(np.float64)
    counts = np.bincount(labels[known], minlength=len(shapes))
    classes = np.array([number for _, number in traced], dtype=np.int64)
    return Regions(shapely.polygons(lines, indices=owners), classes, totals, counts), labels


def _link(parents: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    """Join the regions of pairs of pieces, in place: afterwards all pieces of a region have the same parent."""

    def root(piece: int) -> int:
        while parents[piece] != piece:
            parents[piece] = piece = int(parents[parents[piece]])
        return piece

    for upper, lower in pairs.T.tolist():
        parents[root(upper)] = root(lower)
    while (parents[parents] != parents).any():
        parents[:] = parents[parents]
