"""Fewer corners for polygons traced from pixels, with neighbours kept together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.imagery.ground import Ground

# Lattice points that are looked up at once.
_POINTS = 1 << 22


def simplified(polygons: NDArray[Any], ground: Ground, tolerance: float) -> NDArray[Any]:
    """Place polygons on the ground, and simplify their edges when ``tolerance`` is above 0.

    Neighbours share every corner before, so that GEOS's simplification of coverages (Visvalingam and Whyatt's, edge by
    edge) leaves neither gaps nor overlaps.

    Args:
        polygons: (n,) of one class map, in pixels.
        ground: Where they lie.
        tolerance: In units of the map; corners whose triangle is smaller than about its square go.
    """
    import shapely

    if tolerance <= 0 or not len(polygons):
        return ground.place(polygons)
    placed = ground.place(with_shared_corners(polygons))
    fewer: NDArray[Any] = shapely.coverage_simplify(placed, tolerance)
    return fewer


def with_shared_corners(polygons: NDArray[Any]) -> NDArray[Any]:
    """Give polygons of axis-parallel edges a corner wherever a neighbour has one."""
    import shapely

    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    points = points.astype(np.int64)
    columns = int(points[:, 0].max()) + 1
    known = np.unique(points[:, 1] * columns + points[:, 0])
    same = ring_of[1:] == ring_of[:-1]
    lengths = np.where(same, np.abs(np.diff(points, axis=0)).sum(axis=1), 1)
    kept_points, kept_rings = [], []
    ends = np.cumsum(lengths)
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


def _walk(
    points: NDArray[np.int64], ring_of: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every lattice point from each point on to the next, without the next, and its ring."""
    directions = np.sign(np.diff(points, axis=0))
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    walked = np.repeat(points[:-1], lengths, axis=0) + np.repeat(directions, lengths, axis=0) * steps[:, np.newaxis]
    return walked, np.repeat(ring_of, lengths)
