"""Polygons in pixels on the ground: coordinates, areas, longitude and latitude."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform as reprojected

from segshrink.errors import DataError
from segshrink.imagery.georeference import Georeference

# The WGS 84 ellipsoid: larger half axis in metres, eccentricity.
_HALF_AXIS = 6378137.0
_ECCENTRICITY = math.sqrt(0.00669437999014)
_WGS84 = CRS.from_epsg(4326)
# A picture that lies nowhere hangs from the origin, as QGIS shows it.
_HANGING = Affine(1, 0, 0, 0, -1, 0)


class Ground:
    """Where the pixels of a grid lie.

    Attributes:
        crs: WKT of the coordinate system, None when unknown.
        unit: What areas are in: "m2", or "px" when the ground is unknown.
    """

    def __init__(self, georeference: Georeference) -> None:
        if georeference.transform is not None:
            self._transform = Affine(*georeference.transform)
            self.crs = georeference.crs
        elif georeference.gcps:
            self._transform = from_gcps(georeference.profile()["gcps"])
            self.crs = georeference.gcp_crs
        else:
            self._transform = _HANGING
            self.crs = None
        self._system = None if self.crs is None else CRS.from_wkt(self.crs)
        self._kind, self._factor = _area_kind(self._system)
        self.unit: Literal["m2", "px"] = "px" if self._kind == "pixels" else "m2"

    def place(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Move polygons from pixels to the coordinate system; control points by the affine transform that fits best."""
        import shapely

        a, b, c, d, e, f = self._transform[:6]

        def put(points: NDArray[np.float64]) -> NDArray[np.float64]:
            cols, rows = points.T
            return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)

        moved: NDArray[Any] = shapely.transform(polygons, put)
        return moved

    def to_degrees(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Turn placed polygons into longitude and latitude on WGS 84; left as they are when nothing is known."""
        import shapely

        if self._system is None:
            return polygons
        moved: NDArray[Any] = shapely.transform(polygons, lambda points: _degrees(self._system, points))
        return moved

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Measure polygons in pixels.

        In a projected system the area is that on the map, in geographic ones and Mercator's (whose maps stretch with
        the latitude) that on the WGS 84 ellipsoid, between parallels and meridians.

        Returns:
            (n,) areas in ``unit``.
        """
        import shapely

        if self._kind == "pixels":
            flat: NDArray[np.float64] = shapely.area(polygons)
            return flat
        if self._kind == "map":
            return np.asarray(shapely.area(polygons) * abs(self._transform.determinant) * self._factor**2)
        degrees = self.to_degrees(self.place(polygons))
        round_earth: NDArray[np.float64] = shapely.area(shapely.transform(degrees, _equal_area))
        return round_earth


def _area_kind(system: CRS | None) -> tuple[Literal["pixels", "map", "ellipsoid"], float]:
    if system is None:
        return "pixels", 1.0
    if system.is_geographic or 'PROJECTION["Mercator' in system.to_wkt():
        return "ellipsoid", 1.0
    try:
        return "map", float(system.linear_units_factor[1])
    except CRSError:  # an engineering system without a known unit
        return "pixels", 1.0


def _degrees(system: CRS | None, points: NDArray[np.float64]) -> NDArray[np.float64]:
    if system == _WGS84 or not len(points):
        return points
    try:
        longitudes, latitudes = reprojected(system, _WGS84, points[:, 0], points[:, 1])
    except (CPLE_BaseError, CRSError, RasterioError) as error:
        raise DataError(
            "the scene's coordinate system can't be turned into longitude and latitude, which GeoJSON is in; "
            "write a .gpkg"
        ) from error
    return np.stack([longitudes, latitudes], axis=1)


def _equal_area(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lambert's cylindrical equal-area projection of longitude and latitude in degrees, in metres.

    J. P. Snyder, "Map Projections: A Working Manual", 1987, p. 81.
    """
    longitude, latitude = np.radians(points).T
    sine = np.sin(latitude)
    slack = _ECCENTRICITY * sine
    authalic = (1 - _ECCENTRICITY**2) * (sine / (1 - slack**2) + np.arctanh(slack) / _ECCENTRICITY)
    return np.stack([_HALF_AXIS * longitude, _HALF_AXIS * authalic / 2], axis=1)
