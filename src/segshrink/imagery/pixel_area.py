"""The place of a grid's pixels on the map, and their area on the ground."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as reprojected

from segshrink.errors import DataError
from segshrink.imagery.georeference import NEGLIGIBLE_STRETCH, WGS84, Georeference, ground_steps

# Lambert's cylindrical equal-area projection of the WGS 84 ellipsoid, in meters.
_EQUAL_AREA = "EPSG:6933"
# Without a georeference y points down from the origin, as in QGIS.
_PIXELS = Affine(1, 0, 0, 0, -1, 0)
# Degrees beyond which a longitude isn't where it is expected, but once round the earth from there.
_TURNED = 181.0


class PixelGrid:
    """A grid of pixels on a map.

    Attributes:
        crs: WKT of the coordinate system, None when unknown.
        unit: What areas are in: "m2", or "px" when the ground is unknown.
        pixel_area: The area of a pixel in the middle of the grid, in ``unit``.
    """

    def __init__(self, georeference: Georeference) -> None:
        transform, crs = georeference.placement
        self._transform, self.crs = (_PIXELS, None) if transform is None else (transform, crs)
        self._system = None if self.crs is None else CRS.from_wkt(self.crs)
        self._size = georeference.height, georeference.width
        self._kind = self._area_kind()
        self.unit: Literal["m2", "px"] = "px" if self._kind == "pixels" else "m2"
        self.pixel_area = math.prod(georeference.pixel_size or (1.0, 1.0))

    def place(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Move polygons from pixels to the coordinate system; control points by the affine transform that fits best."""
        import shapely

        moved: NDArray[Any] = shapely.transform(polygons, self._on_map)
        return moved

    def to_degrees(self, polygons: NDArray[Any]) -> NDArray[Any]:
        """Turn placed polygons into longitude and latitude on WGS 84; left as they are when nothing is known.

        Across the antimeridian longitudes go on beyond 180 degrees.

        Raises:
            DataError: The coordinate system lies nowhere on earth.
        """
        import shapely

        if self._system is None:
            return polygons
        moved: NDArray[Any] = shapely.transform(polygons, self._degrees)
        return moved

    def areas(self, polygons: NDArray[Any]) -> NDArray[np.float64]:
        """Measure polygons in pixels.

        On a map that keeps areas within a percent it is the area on the map. In geographic systems and Mercator's it is
        that on the WGS 84 ellipsoid, between parallels and meridians, and on other maps that stretch the ground that of
        a pixel on the ellipsoid at the polygon's center, times the pixels.

        Returns:
            (n,) areas in ``unit``.
        """
        import shapely

        if self._kind == "cylinder":
            return np.asarray(shapely.area(shapely.transform(self.place(polygons), self._on_equal_area_map)))
        pixels: NDArray[np.float64] = shapely.area(polygons)
        if self._system is None or self._kind == "pixels" or not len(polygons):
            return pixels
        if self._kind == "map":
            meters = float(self._system.linear_units_factor[1])
            return pixels * (abs(float(self._transform.determinant)) * meters**2)
        return pixels * self._pixel_areas(self._system, shapely.get_coordinates(shapely.centroid(polygons)))

    def _area_kind(self) -> Literal["pixels", "map", "stretched", "cylinder"]:
        if self._system is None:
            return "pixels"
        if self._system.is_geographic or 'PROJECTION["Mercator' in self._system.to_wkt():
            return "cylinder"
        try:
            meters = float(self._system.linear_units_factor[1])
        except CRSError:  # an engineering system without a known unit
            return "pixels"
        rows, cols = np.meshgrid(*(np.linspace(0, length, 3) for length in self._size))
        areas = self._pixel_areas(self._system, np.stack([cols.ravel(), rows.ravel()], axis=1))
        stretch = areas / (abs(self._transform.determinant) * meters**2)
        return "stretched" if (np.abs(stretch - 1) > NEGLIGIBLE_STRETCH).any() else "map"

    def _on_map(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d, e, f = self._transform[:6]
        cols, rows = points.T
        return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)

    def _degrees(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn places on the map into degrees, with longitudes that have no gap inside the grid."""
        if not len(points) or self._system == CRS.from_string(WGS84):
            return points
        height, width = self._size
        middle = self._on_map(np.array([[width / 2, height / 2]]))
        try:
            longitudes, latitudes = np.array(reprojected(self._system, WGS84, *np.concatenate([points, middle]).T))
        except (CPLE_BaseError, CRSError, RasterioError) as error:
            raise DataError(
                "the scene's coordinate system can't be turned into longitude and latitude, which GeoJSON is in; "
                "write a .gpkg"
            ) from error
        x_degrees = self._eastward(WGS84) if self._kind == "cylinder" else 0.0
        away = longitudes[-1] + (points[:, 0] - middle[0, 0]) * x_degrees - longitudes[:-1]
        turns = np.where(np.abs(away) > _TURNED, np.round(away / 360), 0)
        return np.stack([longitudes[:-1] + 360 * turns, latitudes[:-1]], axis=1)

    def _on_equal_area_map(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points from a map whose x is proportional to the longitude; so no antimeridian tears polygons."""
        x, y = points.T
        pole = math.inf
        if self._system is not None and self._system.is_geographic:
            pole = math.pi / 2 / self._system.units_factor[1]
        parallels, inverse = np.unique(np.clip(y, -pole, pole), return_inverse=True)
        _, northings = reprojected(self._system, _EQUAL_AREA, np.zeros_like(parallels), parallels)
        return np.stack([x * self._eastward(_EQUAL_AREA), np.asarray(northings)[inverse]], axis=1)

    def _eastward(self, target: str) -> float:
        """Return by how much x grows on another cylindrical map for a unit of x on this one."""
        step = 1.0 if self._system is not None and self._system.is_geographic else 100_000.0
        (west, east), _ = reprojected(self._system, target, [0.0, step], [0.0, 0.0])
        return float(east - west) / step

    def _pixel_areas(self, system: CRS, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the area on the ellipsoid of a pixel at each of some (n, 2) points in pixels."""
        a, b, _, d, e, _ = self._transform[:6]
        down, right = ground_steps(system, self._on_map(points), step=((b, e), (a, d)))
        return np.asarray(np.linalg.norm(np.cross(down, right), axis=-1))
