"""Where on the ground an image's pixels lie: read from a raster, scaled, cut, and given to another raster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform as reprojected

from segshrink.imagery.raster_files import Source, gdal_settings, open_source

WGS84 = "EPSG:4326"
# Cartesian coordinates of the WGS 84 ellipsoid, in meters.
_EARTH_CENTERED = "EPSG:4978"
# Maps made for measuring stretch the ground by less than this part.
NEGLIGIBLE_STRETCH = 0.01
# Corners that lie closer together than this part of a pixel are the same.
_SAME_CORNER = 0.5

Coefficients = tuple[float, float, float, float, float, float]


class ControlPoint(NamedTuple):
    """A pixel whose place on the ground is known: ``row`` and ``col`` in pixels, ``x``, ``y``, ``z`` on the ground."""

    row: float
    col: float
    x: float
    y: float
    z: float = 0.0


@dataclass(frozen=True)
class Georeference:
    """The grid of an image and where it lies. Rational polynomials (RPCs) are left out.

    Attributes:
        height: Rows of the grid.
        width: Columns of the grid.
        crs: Coordinate reference system of ``transform`` as WKT; None when unknown.
        transform: (a, b, c, d, e, f) with x = a·col + b·row + c and y = d·col + e·row + f, from the outer corner of
            the first pixel; None when unknown. Rotated ones have b and d.
        gcps: Ground control points of an image that has no transform.
        gcp_crs: Coordinate reference system of ``gcps`` as WKT.
    """

    height: int
    width: int
    crs: str | None = None
    transform: Coefficients | None = None
    gcps: tuple[ControlPoint, ...] = ()
    gcp_crs: str | None = None

    @classmethod
    def of(cls, dataset: Any) -> Georeference:
        """Read the georeference of an open rasterio dataset."""
        points, crs = dataset.gcps
        # GDAL gives the identity where a file says nothing.
        known = not dataset.transform.is_identity
        return cls(
            height=dataset.height,
            width=dataset.width,
            crs=dataset.crs.to_wkt() if dataset.crs else None,
            transform=_coefficients(dataset.transform) if known else None,
            gcps=tuple(
                ControlPoint(*(float(getattr(point, name) or 0) for name in ControlPoint._fields)) for point in points
            ),
            gcp_crs=crs.to_wkt() if points and crs else None,
        )

    @property
    def known(self) -> bool:
        """Whether anything tells where the grid lies."""
        return self.crs is not None or self.transform is not None or bool(self.gcps)

    @property
    def placement(self) -> tuple[Affine | None, str | None]:
        """Transform and CRS, None when unknown; of control points the affine transform that fits them best."""
        if self.transform is None and self.gcps:
            return from_gcps(self.profile()["gcps"]), self.gcp_crs
        return None if self.transform is None else Affine(*self.transform), self.crs

    def profile(self) -> dict[str, Any]:
        """Return what ``rasterio.open(path, "w", **profile)`` must know: size, CRS, and transform or points."""
        profile: dict[str, Any] = {"height": self.height, "width": self.width}
        if self.transform is None and self.gcps:
            profile["gcps"] = [GroundControlPoint(**point._asdict()) for point in self.gcps]
            crs = self.gcp_crs
        else:
            crs = self.crs
        if crs is not None:
            profile["crs"] = CRS.from_wkt(crs)
        if self.transform is not None:
            profile["transform"] = Affine(*self.transform)
        return profile

    def world_file(self) -> str:
        """Return what a world file says of ``transform``: its numbers, from the middle of the first pixel."""
        assert self.transform is not None  # noqa: S101
        a, b, _, d, e, _ = self.transform
        x, y = _place(self.transform, 0.5, 0.5)
        return "".join(f"{number!r}\n" for number in (a, d, b, e, x, y))

    def scaled(self, height: int, width: int) -> Georeference:
        """Return that of the same ground in ``height`` × ``width`` pixels."""
        down, right = self.height / height, self.width / width
        transform = self.transform
        if transform is not None:
            a, b, c, d, e, f = transform
            transform = a * right, b * down, c, d * right, e * down, f
        gcps = tuple(point._replace(row=point.row / down, col=point.col / right) for point in self.gcps)
        return replace(self, height=height, width=width, transform=transform, gcps=gcps)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Ground height and width of a pixel in meters, at the image's center; None when unknown.

        Degrees, and the meters of maps that stretch the ground there (Mercator's by 2 at 60 degrees of latitude), are
        turned into meters on the WGS 84 ellipsoid; those of other maps are taken as they are. Control points count by
        the affine transform that fits them best.
        """
        transform, text = self.placement
        if transform is None or text is None:
            return None
        crs = CRS.from_wkt(text)
        a, b, _, d, e, _ = transform[:6]
        middle = np.array([_place(_coefficients(transform), self.height / 2, self.width / 2)])
        down, right = np.linalg.norm(ground_steps(crs, middle, step=((b, e), (a, d))), axis=-1)[:, 0].tolist()
        if not crs.is_geographic:
            try:
                meters = float(crs.linear_units_factor[1])
            except CRSError:  # an engineering system without a known unit
                return None
            on_map = math.hypot(b, e) * meters, math.hypot(a, d) * meters
            stretches = (ground / size - 1 for ground, size in zip((down, right), on_map, strict=True))
            if not any(abs(stretch) > NEGLIGIBLE_STRETCH for stretch in stretches):
                down, right = on_map
        return (down, right) if min(down, right) > 0 and math.isfinite(down + right) else None

    def same_place(self, other: Georeference) -> bool:
        """Whether another grid of the same size covers the same ground; True where either doesn't say."""
        if self.transform is None or other.transform is None:
            return True
        # Programs word one system differently; only codes tell two apart for sure.
        codes = {CRS.from_wkt(crs).to_epsg() for crs in (self.crs, other.crs) if crs} - {None}
        if len(codes) > 1:
            return False
        a, b, _, d, e, _ = self.transform
        limit = _SAME_CORNER * min(math.hypot(a, d), math.hypot(b, e))
        corners = [(row, col) for row in (0, self.height) for col in (0, self.width)]
        return all(
            math.dist(_place(self.transform, *corner), _place(other.transform, *corner)) <= limit for corner in corners
        )


def read_georeference(source: Source) -> Georeference:
    """Read where an image lies; errors as in ``open_source``."""
    with gdal_settings(), open_source(source) as dataset:
        return Georeference.of(dataset)


def ground_steps(
    crs: CRS, points: NDArray[np.float64], *, step: tuple[tuple[float, float], tuple[float, float]]
) -> NDArray[np.float64]:
    """Return the ways on the ground of two small steps on a map, around each of some points.

    Args:
        crs: The map's coordinate system.
        points: (n, 2) x and y.
        step: (x, y) of the one and of the other step, in units of the map.

    Returns:
        (2, n, 3) vectors in meters (WGS 84, Earth-centered); NaN where the system can't be turned into longitude and
        latitude.
    """
    halves = np.array(step)[:, np.newaxis] / 2
    ends = np.stack([points - halves, points + halves])  # (2, 2, n, 2)
    try:
        degrees = reprojected(crs, WGS84, *ends.reshape(-1, 2).T)
        places = np.array(reprojected(WGS84, _EARTH_CENTERED, *degrees, np.zeros(ends.size // 2)))
    except (CPLE_BaseError, CRSError, RasterioError):
        return np.full((2, len(points), 3), np.nan)
    places[~np.isfinite(places)] = np.nan  # places that the map doesn't have
    before, after = places.T.reshape(*ends.shape[:-1], 3)
    return np.asarray(after - before)


def _coefficients(transform: Affine) -> Coefficients:
    return tuple(float(part) for part in transform[:6])  # type: ignore[return-value]


def _place(transform: Coefficients, row: float, col: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * col + b * row + c, d * col + e * row + f
