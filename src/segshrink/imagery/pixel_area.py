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
from segshrink.imagery.georeference import NEGLIGIBLE_STRETCH, WGS84, Georeference, ground_steps

# The WGS 84 ellipsoid: larger half axis in metres, eccentricity.
_HALF_AXIS = 6378137.0
_ECCENTRICITY = math.sqrt(0.00669437999014)
# A picture that lies nowhere hangs from the origin, as QGIS shows it.
_HANGING = Affine(1, 0, 0, 0, -1, 0)
# Degrees beyond which a longitude isn't where it is expected, but once round the earth from there.
_TURNED = 181.0


class Ground:
    """Where the pixels of a grid lie.

    Attributes:
        crs: WKT of the coordinate system, None when unknown.
        unit: What areas are in: "m2", or "px" when the ground is unknown.
        pixel_area: The area of a pixel in the middle of the grid, in ``unit``.
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
        self._size = georeference.height, georeference.width
        self._kind, self._factor = self._area_kind()
        self.unit: Literal["m2", "px"] = "px" if self._kind == "pixels" else "m2"
        self.pixel_area = math.prod(georeference.pixel_size or (1.0, 1.0))

    def place(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Move polygons from pixels to the coordinate system; control points by the affine transform that fits best."""
        import shapely

        moved: NDArray[Any] = shapely.transform(polygons, self._put)
        return moved

    def to_degrees(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Turn placed polygons into longitude and latitude on WGS 84; left as they are when nothing is known.

        Across the antimeridian longitudes go on beyond 180 degrees.
        """
        import shapely

        if self._system is None:
            return polygons
        moved: NDArray[Any] = shapely.transform(polygons, self._degrees)
        return moved

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Measure polygons in pixels.

        On a map that keeps areas within a percent it is that on the map. In geographic systems and Mercator's it is
        that on the WGS 84 ellipsoid, between parallels and meridians, and on other maps that stretch the ground that of
        a pixel on the ellipsoid at the polygon's centre, times the pixels.

        Returns:
            (n,) areas in ``unit``.
        """
        import shapely

        if self._kind == "ellipsoid":
            degrees = self.to_degrees(self.place(polygons))
            round_earth: NDArray[np.float64] = shapely.area(shapely.transform(degrees, _equal_area))
            return round_earth
        flat: NDArray[np.float64] = shapely.area(polygons)
        if self._kind == "pixels" or not len(polygons):
            return flat
        if self._kind == "map":
            return np.asarray(flat * abs(self._transform.determinant) * self._factor**2)
        return np.asarray(flat * self._pixel_areas(shapely.get_coordinates(shapely.centroid(polygons))))

    def _put(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d, e, f = self._transform[:6]
        cols, rows = points.T
        return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)

    def _pixel_areas(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the area on the ellipsoid of a pixel at each of some (n, 2) points in pixels."""
        a, b, _, d, e, _ = self._transform[:6]
        down, right = ground_steps(self._system, self._put(points), step=((b, e), (a, d)))
        return np.asarray(np.linalg.norm(np.cross(down, right), axis=-1))

    def _area_kind(self) -> tuple[Literal["pixels", "map", "stretched", "ellipsoid"], float]:
        if self._system is None:
            return "pixels", 1.0
        if self._system.is_geographic or self._is_mercator():
            return "ellipsoid", 1.0
        try:
            factor = float(self._system.linear_units_factor[1])
        except CRSError:  # an engineering system without a known unit
            return "pixels", 1.0
        rows, cols = np.meshgrid(*(np.linspace(0, length, 3) for length in self._size))
        areas = self._pixel_areas(np.stack([cols.ravel(), rows.ravel()], axis=1))
        stretch = areas / (abs(self._transform.determinant) * factor**2)
        return ("stretched" if (np.abs(stretch - 1) > NEGLIGIBLE_STRETCH).any() else "map"), factor

    def _is_mercator(self) -> bool:
        return self._system is not None and 'PROJECTION["Mercator' in self._system.to_wkt()

    def _degrees(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn places on the map into degrees, with longitudes that have no gap inside the grid."""
        degrees = _degrees(self._system, points)
        if degrees is points:
            return points
        height, width = self._size
        middle = self._put(np.array([[width / 2, height / 2]]))
        expected = _degrees(self._system, middle)[0, 0] + (points[:, 0] - middle[0, 0]) * self._degrees_a_unit()
        away = expected - degrees[:, 0]
        turns = np.where(np.abs(away) > _TURNED, np.round(away / 360), 0)
        return np.stack([degrees[:, 0] + 360 * turns, degrees[:, 1]], axis=1)

    def _degrees_a_unit(self) -> float:
        """Return by how much the longitude grows with x, about; 0 on maps that don't reach round the earth."""
        if self._system is None or not (self._system.is_geographic or self._is_mercator()):
            return 0.0
        if self._system.is_geographic:
            return math.degrees(self._system.units_factor[1])
        return math.degrees(self._system.linear_units_factor[1] / _HALF_AXIS)


def _degrees(system: CRS | None, points: NDArray[np.float64]) -> NDArray[np.float64]:
    if system == CRS.from_string(WGS84) or not len(points):
        return points
    try:
        longitudes, latitudes = reprojected(system, WGS84, points[:, 0], points[:, 1])
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
