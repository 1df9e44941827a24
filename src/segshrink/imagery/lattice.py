"""Polygons whose corners lie on the lattice of pixel corners and whose edges run along it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lattice points that are looked up at once.
_POINTS = 1 << 22


def united(polygons: NDArray[Any]) -> Any:
    """Make one polygon of several that touch along rows and don't overlap; corners that it runs straight through go."""
    import shapely

    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, ring_of = _corners(rings)
    seams = np.unique(shapely.bounds(polygons)[:, [1, 3]].astype(np.int64))
    edges = np.diff(points, axis=0)
    on_seam = (ring_of[1:] == ring_of[:-1]) & (edges[:, 1] == 0) & np.isin(points[:-1, 1], seams)
    # Where neighbours meet, both get a corner at every pixel: then GEOS needs no intersections.
    stepped, stepped_rings = _walk(points, ring_of[:-1], np.where(on_seam, np.abs(edges[:, 0]), 1))
    matching = shapely.linearrings(
        np.concatenate([stepped, points[-1:]]).astype(float), indices=np.append(stepped_rings, ring_of[-1])
    )
    whole = shapely.coverage_union_all(shapely.polygons(matching, indices=owners))
    return _without_straight_corners(whole.geoms[0] if hasattr(whole, "geoms") else whole)


def with_shared_corners(polygons: NDArray[Any]) -> NDArray[Any]:
    """Give polygons a corner wherever a neighbour has one."""
    import shapely

    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, ring_of = _corners(rings)
    columns = int(points[:, 0].max()) + 1
    known = np.unique(points[:, 1] * columns + points[:, 0])
    same = ring_of[1:] == ring_of[:-1]
    lengths = np.where(same, np.abs(np.diff(points, axis=0)).sum(axis=1), 1)
    ends = np.cumsum(lengths)
    kept_points, kept_rings = [], []
    first = 0
    while first < len(lengths):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + _POINTS)))
        walked, walked_rings = _walk(points[first : last + 1], ring_of[first:last], lengths[first:last])
        keys = walked[:, 1] * columns + walked[:, 0]
        found = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
        kept_points.append(walked[found])
        kept_rings.append(walked_rings[found])
        first = last
    kept_points.append(points[-1:])
    kept_rings.append(ring_of[-1:])
    closed = shapely.linearrings(np.concatenate(kept_points).astype(float), indices=np.concatenate(kept_rings))
    shared: NDArray[Any] = shapely.polygons(closed, indices=owners)
    return shared


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


def _without_straight_corners(polygon: Any) -> Any:
    import shapely

    rings = []
    for ring in shapely.get_rings(polygon):
        points = shapely.get_coordinates(ring)[:-1]
        into, out = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
        points = points[into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]]
        rings.append(shapely.linearrings(np.concatenate([points, points[:1]])))
    return shapely.polygons(rings[0], holes=rings[1:] or None)
