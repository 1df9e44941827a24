"""Fewer corners for polygons traced from pixels, with neighbours kept together."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from segshrink.imagery.pixel_area import PixelGrid
from segshrink.imagery.pixel_edges import with_shared_corners


def simplified(polygons: NDArray[Any], grid: PixelGrid, tolerance: float) -> NDArray[Any]:
    """Place polygons on the ground, and simplify their edges when ``tolerance`` is above 0.

    Neighbours share every corner before, so that GEOS's simplification of coverages (Visvalingam and Whyatt's, edge by
    edge) leaves neither gaps nor overlaps.

    The simplification knows areas only, so it is done in pixels, where maps in degrees, feet or Mercator's metres come
    out like those in metres of the ground.

    Args:
        polygons: (n,) of one class map, in pixels.
        grid: Where they lie.
        tolerance: In metres (pixels where the ground is unknown); corners whose triangle is smaller than about its
            square go.
    """
    import shapely

    if tolerance <= 0 or not len(polygons):
        return grid.place(polygons)
    fewer = shapely.coverage_simplify(with_shared_corners(polygons), tolerance / math.sqrt(grid.pixel_area))
    return grid.place(fewer)
