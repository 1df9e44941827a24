"""Connected regions of a class map as polygons, traced strip by strip and joined across the strips' borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine

from segshrink.classes import IGNORE_INDEX
from segshrink.imagery.pixel_edges import united

_NOBODY = -1


@dataclass(frozen=True)
class Strip:
    """Some rows of a class map.

    Attributes:
        row: The first one's number.
        index: (h, W) class indices, 255 where there is none.
        confidence: (h, W) numbers, None when there are none.
        known: (h, W) where ``confidence`` is known; None: everywhere.
    """

    row: int
    index: NDArray[np.uint8]
    confidence: NDArray[Any] | None = None
    known: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Regions:
    """Connected regions (pixels with a common edge) of one class each.

    Attributes:
        polygons: (n,) shapely polygons in pixels: x is the column, y the row, of pixels' corners.
        classes: (n,) class indices.
        totals: (n,) sum of the confidence over a region's pixels.
        counts: (n,) how many of its pixels have a known confidence.
    """

    polygons: NDArray[Any]
    classes: NDArray[np.int64]
    totals: NDArray[np.float64]
    counts: NDArray[np.float64]

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
            np.concatenate([np.empty(0), *(part.counts for part in parts)]),
        )


def find_regions(strips: Iterable[Strip], height: int) -> Iterator[Regions]:
    """Find the regions of a class map.

    A region comes when the last strip that it touches was read; only those that reach the strip's lower border are
    held, so memory is that of a strip and of the regions that are still growing.

    Args:
        strips: All rows in order.
        height: Rows of the class map.
    """
    seam = _Seam()
    for strip in strips:
        traced = _trace(strip)
        last = strip.row + len(strip.index) >= height
        yield seam.cross(traced, strip, last=last)


@dataclass(eq=False)
class _Group:
    """Pieces of one region, and the group that it was joined with."""

    pieces: list[Regions] = field(default_factory=list)
    joined_with: _Group | None = None

    def root(self) -> _Group:
        group = self
        while group.joined_with is not None:
            group = group.joined_with
        return group


@dataclass(frozen=True)
class _Traced:
    """Regions of one strip and their edges: whose they are, and from where (x, y) to where."""

    regions: Regions
    owners: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def along(self, row: int, width: int) -> NDArray[np.int64]:
        """Return, for every column, the region with an edge on the upper border of ``row``, or -1."""
        on_it = np.flatnonzero((self.starts[:, 1] == row) & (self.ends[:, 1] == row))
        columns = np.sort(np.stack([self.starts[on_it, 0], self.ends[on_it, 0]]), axis=0)
        lengths = columns[1] - columns[0]
        owner = np.full(width, _NOBODY, dtype=np.int64)
        inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        owner[np.repeat(columns[0], lengths) + inside] = np.repeat(self.owners[on_it], lengths)
        return owner


class _Seam:
    """The border between the strips read and the next one, and the regions that reach it."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._above: NDArray[np.int64] | None = None  # number of the group, by column
        self._classes: NDArray[np.uint8] | None = None

    def cross(self, traced: _Traced, strip: Strip, *, last: bool) -> Regions:
        """Move below a strip and return the regions that end in or before it."""
        width = strip.index.shape[1]
        holders = self._hold(traced, strip, width)
        reaching = np.full(width, _NOBODY) if last else traced.along(strip.row + len(strip.index), width)
        for piece in np.unique(reaching[reaching != _NOBODY]).tolist():
            if piece not in holders:
                holders[piece] = _Group([traced.regions[[piece]]])
        growing = {
            group: number
            for number, group in enumerate(
                dict.fromkeys(holders[piece].root() for piece in np.unique(reaching).tolist() if piece != _NOBODY)
            )
        }
        touched = dict.fromkeys(group.root() for group in (*self._groups, *holders.values()))
        ended = [_united(group.pieces) for group in touched if group not in growing]
        alone = np.ones(len(traced.regions), dtype=bool)
        alone[list(holders)] = False
        numbers = np.full(len(traced.regions) + 1, _NOBODY, dtype=np.int64)
        for piece, group in holders.items():
            numbers[piece] = growing.get(group.root(), _NOBODY)
        self._groups = list(growing)
        self._above = numbers[reaching]
        self._classes = strip.index[-1]
        return Regions.joined([traced.regions[alone], *ended])

    def _hold(self, traced: _Traced, strip: Strip, width: int) -> dict[int, _Group]:
        """Give the pieces of a strip to the groups above that they share an edge and the class with."""
        holders: dict[int, _Group] = {}
        if self._above is None:
            return holders
        below = traced.along(strip.row, width)
        meets = (self._above != _NOBODY) & (below != _NOBODY) & (self._classes == strip.index[0])
        for number, piece in np.unique(np.stack([self._above[meets], below[meets]]), axis=1).T.tolist():
            group = self._groups[number].root()
            holder = holders.get(piece)
            if holder is None:
                group.pieces.append(traced.regions[[piece]])
                holders[piece] = group
            elif (holder := holder.root()) is not group:
                holder.pieces.extend(group.pieces)
                group.pieces, group.joined_with = [], holder
        return holders


def _trace(strip: Strip) -> _Traced:
    import shapely

    found = list(
        features.shapes(
            strip.index, mask=strip.index != IGNORE_INDEX, connectivity=4, transform=Affine.translation(0, strip.row)
        )
    )
    rings = [ring for shape, _ in found for ring in shape["coordinates"]]
    lengths = np.array([len(ring) for ring in rings], dtype=np.int64)
    owners = np.repeat(np.arange(len(found)), [len(shape["coordinates"]) for shape, _ in found])
    points = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), dtype=np.float64).reshape(-1, 2)
    ring_of = np.repeat(np.arange(len(rings)), lengths)
    polygons = shapely.polygons(shapely.linearrings(points, indices=ring_of), indices=owners)
    corners = points.astype(np.int64)
    inner = np.flatnonzero(ring_of[1:] == ring_of[:-1])
    edge_owners = owners[ring_of[inner]]
    starts, ends = corners[inner], corners[inner + 1]
    totals, counts = _sums(strip, len(found), edge_owners, starts, ends)
    classes = np.array([value for _, value in found], dtype=np.int64)
    return _Traced(Regions(polygons, classes, totals, counts), edge_owners, starts, ends)


def _sums(
    strip: Strip, regions: int, owners: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the confidence over each region, and count where it is known, from the regions' vertical edges (Green)."""
    if strip.confidence is None:
        return np.zeros(regions), np.zeros(regions)
    known = np.ones(strip.index.shape, dtype=bool) if strip.known is None else strip.known
    columns, tops, bottoms = starts[:, 0], starts[:, 1] - strip.row, ends[:, 1] - strip.row
    signed: list[NDArray[np.float64]] = []
    for values in (np.where(known, strip.confidence, 0), known):
        integral = np.zeros((values.shape[0] + 1, values.shape[1] + 1), dtype=np.result_type(values.dtype, np.int64))
        np.cumsum(values, axis=0, out=integral[1:, 1:])
        np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])
        # Horizontal edges add nothing; a ring's other direction turns the sign.
        parts = integral[bottoms, columns] - integral[tops, columns]
        signed.append(np.bincount(owners, weights=parts, minlength=regions).astype(np.float64))
    totals, counts = signed
    return totals * np.sign(counts), np.abs(counts)


def _united(pieces: Sequence[Regions]) -> Regions:
    """Make one region of pieces that share edges."""
    if len(pieces) == 1:
        return pieces[0]
    together = Regions.joined(pieces)
    return Regions(
        np.array([united(together.polygons)], dtype=object),
        together.classes[:1],
        together.totals.sum(keepdims=True),
        together.counts.sum(keepdims=True),
    )
