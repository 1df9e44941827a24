"""Georeferences: written back by rasterio, and measured against known grounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from segshrink.imagery.georeference import Georeference
from segshrink.imagery.raster_files import silent

Paint = Callable[..., Path]

ROTATED = Affine(0.4, 0.3, 5000.0, 0.3, -0.4, 8000.0)
# Sides of 2 m on the equidistant cylindrical map at 60 degrees: older PROJ draws it on a sphere, newer PROJ
# on the ellipsoid, where the meridian is right and a meter of the map is N cos(phi) / a of a parallel.
_, (_LATITUDE,) = rasterio.warp.transform("EPSG:4087", "EPSG:4326", [0], [6679169.4])
EQUIDISTANT = (2.00166, 1.00252) if abs(_LATITUDE - 60) < 1e-3 else (2.0, 0.99570)
PIXELS = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)


def read(path: Path) -> Georeference:
    with silent(NotGeoreferencedWarning), rasterio.open(path) as dataset:
        return Georeference.of(dataset)


def test_what_was_read_writes_the_same_grid(paint: Paint, tmp_path: Path) -> None:
    source = paint("rotated.tif", PIXELS, crs="EPSG:32633", transform=ROTATED)
    georeference = read(source)

    copy = tmp_path / "copy.tif"
    with rasterio.open(copy, "w", driver="GTiff", count=1, dtype="uint8", **georeference.profile()):
        pass

    assert read(copy) == georeference
    with rasterio.open(copy) as dataset:
        assert dataset.transform.almost_equals(ROTATED)
        assert dataset.crs.to_epsg() == 32633


def test_control_points_are_kept(paint: Paint, tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row=row, col=col, x=10 + col * 0.001, y=50 - row * 0.002, z=7)
        for row, col in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]
    georeference = read(paint("points.tif", PIXELS, gcps=points, crs="EPSG:4326"))

    copy = tmp_path / "copy.tif"
    with rasterio.open(copy, "w", driver="GTiff", count=1, dtype="uint8", **georeference.profile()):
        pass

    assert georeference.transform is None
    assert georeference.crs is None
    with rasterio.open(copy) as dataset:
        found, crs = dataset.gcps
        assert crs.to_epsg() == 4326
        assert [(point.row, point.col, point.x, point.y, point.z) for point in found] == [
            (point.row, point.col, point.x, point.y, point.z) for point in points
        ]
    scaled = georeference.scaled(60, 20)
    assert (scaled.gcps[3].row, scaled.gcps[3].col) == (60, 20)
    assert scaled.gcps[3].x == points[3].x


def test_nothing_known_stays_nothing(paint: Paint) -> None:
    georeference = read(paint("plain.png", PIXELS.astype(np.uint8), driver="PNG"))

    assert georeference == Georeference(30, 40)
    assert georeference.profile() == {"height": 30, "width": 40}
    assert georeference.pixel_size is None


def test_scales_are_products_of_matrices(paint: Paint) -> None:
    path = paint("rotated.tif", PIXELS, crs="EPSG:32633", transform=ROTATED)
    georeference = read(path)

    matrix = np.array(ROTATED).reshape(3, 3)
    overview = matrix @ np.diag([40 / 13, 30 / 11, 1])

    scaled = georeference.scaled(11, 13)
    assert scaled.transform == pytest.approx(tuple(overview.flat[:6]))
    assert (scaled.height, scaled.width) == (11, 13)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32633", ROTATED, (0.5, 0.5)),
        ("EPSG:32633", Affine(2, 0, 5e5, 0, -3, 5e6), (3.0, 2.0)),
        # US survey feet.
        ("EPSG:2226", Affine(10, 0, 6e6, 0, -10, 2e6), (3.048006, 3.048006)),
        # A degree at 60 degrees north, of the WGS 84 ellipsoid: 111.412 km of latitude, 55.800 km of longitude.
        ("EPSG:4326", Affine(1e-3, 0, 10, 0, -1e-3, 60 + 15e-3), (111.412, 55.800)),
        # Mercator's map at 60 degrees: a tile of zoom 18, N cos(phi) and M cos(phi) of the ellipsoid for each meter.
        ("EPSG:3857", Affine(0.597164, 0, 1e6, 0, -0.597164, 8399737.9 + 9), (0.29883, 0.29934)),
        ("EPSG:3395", Affine(2, 0, 1e6, 0, -2, 8362698.5 + 30), (1.00252, 1.00252)),
        # Plate carree at 60 degrees: right along the meridian, twice too wide along the parallel.
        ("EPSG:4087", Affine(2, 0, 1e6, 0, -2, 6679169.4 + 30), EQUIDISTANT),
        # Across the antimeridian, and near the pole, where the polar map enlarges by 3 percent.
        ("EPSG:3857", Affine(2, 0, 20037508.3 - 40, 0, -2, 9.6e6), (0.84756, 0.84858)),
        ("EPSG:3413", Affine(1000, 0, -15000, 0, -1000, 15000), (1031.08, 1031.08)),
    ],
)
def test_pixels_are_measured_in_meters(
    paint: Paint, crs: str, transform: Affine, expected: tuple[float, float]
) -> None:
    georeference = read(paint("grid.tif", PIXELS, crs=crs, transform=transform))

    assert georeference.pixel_size == pytest.approx(expected, rel=1e-4)


def test_control_points_give_a_pixel_size(paint: Paint) -> None:
    points = [
        GroundControlPoint(row=row, col=col, x=5e5 + col * 2, y=5e6 - row * 3)
        for row, col in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]

    assert read(paint("points.tif", PIXELS, gcps=points, crs="EPSG:32633")).pixel_size == pytest.approx((3, 2))


def test_grids_are_compared_by_their_corners(paint: Paint) -> None:
    here = read(paint("here.tif", PIXELS, crs="EPSG:32633", transform=Affine(2, 0, 5e5, 0, -2, 5e6)))
    near = read(paint("near.tif", PIXELS, crs="EPSG:32633", transform=Affine(2, 0, 5e5 + 0.5, 0, -2, 5e6)))
    beside = read(paint("beside.tif", PIXELS, crs="EPSG:32633", transform=Affine(2, 0, 5e5 + 2, 0, -2, 5e6)))
    other = read(paint("other.tif", PIXELS, crs="EPSG:32632", transform=Affine(2, 0, 5e5, 0, -2, 5e6)))
    nowhere = read(paint("nowhere.tif", PIXELS))

    assert here.same_place(near)
    assert here.same_place(nowhere)
    assert nowhere.same_place(here)
    assert not here.same_place(beside)
    assert not here.same_place(other)
