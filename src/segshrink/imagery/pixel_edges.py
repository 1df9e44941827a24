"""Polygons whose corners lie on the lattice of pixel corners and whose edges run along it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lattice points that are looked up at once.
_POINTS = 1 << 22


def united(polygons: NDArray[Any]) -> Any:
    """Make one polygon of pieces that touch along rows and don't overlap; corners that it runs straight through go.

    Edges that two pieces share cancel; what is left is linked into rings again. Where two rings touch in a point they
    keep to what is outside, so that holes touch and nothing crosses. Linear in the corners, unlike a general union.
    """
    import shapely

    points, ring_of = _corners(shapely.get_rings(shapely.orient_polygons(polygons)))
    seams = np.unique(shapely.bounds(polygons)[:, [1, 3]].astype(np.int64))
    starts, ends, owners = _unshared_edges(points, ring_of, seams)
    ways = np.sign(ends - starts)
    broken = np.ones(len(starts), dtype=bool)
    follows = (owners[1:] == owners[:-1]) & (starts[1:] == ends[:-1]).all(axis=1)
    _, inverse, counts = np.unique(_keys(starts), return_inverse=True, return_counts=True)
    broken[1:] = ~follows | (counts[inverse[1:]] > 1)
    firsts = np.flatnonzero(broken)
    lasts = np.append(firsts[1:], len(starts)) - 1
    linked = _linked(starts[firsts], ends[lasts], ways[firsts], ways[lasts])
    order = np.concatenate([np.arange(firsts[arc], lasts[arc] + 1) for ring in linked for arc in ring])
    sizes = np.array([sum(lasts[arc] - firsts[arc] + 1 for arc in ring) for ring in linked])
    before = np.arange(len(order)) - 1
    before[np.cumsum(sizes) - sizes] = np.cumsum(sizes) - 1
    turns = (ways[order] != ways[order[before]]).any(axis=1)
    rings = shapely.linearrings(
        starts[order[turns]].astype(float), indices=np.repeat(np.arange(len(sizes)), sizes)[turns]
    )
    around = shapely.is_ccw(rings)
    return shapely.polygons(rings[around][0], holes=rings[~around])


def _unshared_edges(
    points: NDArray[np.int64], ring_of: NDArray[np.int64], seams: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends of the edges that one ring has alone, and the ring; on ``seams`` pixel by pixel."""
    edges = np.diff(points, axis=0)
    on_seam = (ring_of[1:] == ring_of[:-1]) & (edges[:, 1] == 0) & np.isin(points[:-1, 1], seams)
    stepped, rings = _walk(points, ring_of[:-1], np.where(on_seam, np.abs(edges[:, 0]), 1))
    stepped, rings = np.concatenate([stepped, points[-1:]]), np.append(rings, ring_of[-1])
    real = np.flatnonzero(rings[1:] == rings[:-1])
    starts, ends, rings = stepped[real], stepped[real + 1], rings[real]
    flat = np.flatnonzero((starts[:, 1] == ends[:, 1]) & np.isin(starts[:, 1], seams))
    _, inverse, counts = np.unique(_keys(np.minimum(starts[flat], ends[flat])), return_inverse=True, return_counts=True)
    alone = np.ones(len(starts), dtype=bool)
    alone[flat[counts[inverse] > 1]] = False
    return starts[alone], ends[alone], rings[alone]


def _linked(
    starts: NDArray[np.int64], ends: NDArray[np.int64], out: NDArray[np.int64], into: NDArray[np.int64]
) -> list[list[int]]:
    """Link arcs into rings: each goes on at its end, to the right where two begin; interiors lie to the left."""
    begins: dict[tuple[int, int], list[int]] = {}
    for arc, start in enumerate(map(tuple, starts.tolist())):
        begins.setdefault(start, []).append(arc)
    out_x, out_y = out.T.tolist()
    following = []
    for end, (x, y) in zip(map(tuple, ends.tolist()), into.tolist(), strict=True):
        choices = begins[end]
        right = (arc for arc in choices if x * out_y[arc] < y * out_x[arc])
        following.append(choices[0] if len(choices) == 1 else next(right))
    rings = []
    seen = [False] * len(following)
    for first in range(len(following)):
        ring, arc = [], first
        while not seen[arc]:
            seen[arc] = True
            ring.append(arc)
            arc = following[arc]
        if ring:
            rings.append(ring)
    return rings


def with_shared_corners(polygons: NDArray[Any]) -> NDArray[Any]:
    """Give polygons a corner wherever a neighbour has one."""
    import shapely

    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, ring_of = _corners(rings)
    known = np.unique(_keys(points))
    same = ring_of[1:] == ring_of[:-1]
    lengths = np.where(same, np.abs(np.diff(points, axis=0)).sum(axis=1), 1)
    ends = np.cumsum(lengths)
    kept_points, kept_rings = [], []
    first = 0
    while first < len(lengths):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + _POINTS)))
        walked, walked_rings = _walk(points[first : last + 1], ring_of[first:last], lengths[first:last])
        keys = _keys(walked)
        found = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
        kept_points.append(walked[found])
        kept_rings.append(walked_rings[found])
        first = last
    kept_points.append(points[-1:])
    kept_rings.append(ring_of[-1:])
    closed = shapely.linearrings(np.concatenate(kept_points).astype(float), indices=np.concatenate(kept_rings))
    shared: NDArray[Any] = shapely.polygons(closed, indices=owners)
    return shared


def _keys(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each point, the same for the same point."""
    return points[:, 1] << 32 | points[:, 0]


def _corners(rings: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (n, 2) corners of rings, the first again at the end of each, and which ring each belongs to."""
    import shapely

    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    return points.astype(np.int64), ring_of


def _walk(
    points: NDArray[np.int64], ring_of: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Go ``lengths`` steps from each point to the next; return every point of the way but the last, and its ring."""
    directions = np.sign(np.diff(points, axis=0))
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    walked = np.repeat(points[:-1], lengths, axis=0) + np.repeat(directions, lengths, axis=0) * steps[:, np.newaxis]
    return walked, np.repeat(ring_of, lengths)
