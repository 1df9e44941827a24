from __future__ import annotations

import numpy as np
import pytest
from pyproj import Geod
from rasterio.crs import CRS

from segshrink.errors import DataError
from segshrink.imagery.georeference import ControlPoint, Georeference
from segshrink.imagery.pixel_area import PixelGrid

shapely = pytest.importorskip("shapely")

SQUARE = np.array([shapely.box(2, 3, 12, 33)])
LOCAL = 'LOCAL_CS["site",UNIT["meter",1],AXIS["X",EAST],AXIS["Y",NORTH]]'


def grid(crs: int | str | None, *transform: float) -> PixelGrid:
    text = CRS.from_epsg(crs).to_wkt() if isinstance(crs, int) else crs
    return PixelGrid(Georeference(100, 100, text, transform or None))  # type: ignore[arg-type]


def test_pixels_are_moved_by_rotated_transforms() -> None:
    placed = grid(32618, 0.5, 0.25, 1000.0, 0.1, -0.5, 2000.0).place(SQUARE)[0]
    expected = [(0.5 * x + 0.25 * y + 1000, 0.1 * x - 0.5 * y + 2000) for x, y in SQUARE[0].exterior.coords]
    np.testing.assert_allclose(placed.exterior.coords, expected)


def test_control_points_place_by_the_best_affine_transform() -> None:
    points = tuple(
        ControlPoint(row, col, 5e5 + 2 * col, 4.5e6 - 3 * row) for row, col in [(0, 0), (0, 99), (99, 0), (99, 99)]
    )
    placed = PixelGrid(Georeference(100, 100, gcps=points, gcp_crs=CRS.from_epsg(32618).to_wkt()))
    assert placed.place(SQUARE)[0].bounds == pytest.approx((5e5 + 4, 4.5e6 - 99, 5e5 + 24, 4.5e6 - 9))
    assert placed.areas(SQUARE) == pytest.approx([1800])


def test_areas_on_projected_maps_count_pixels_in_square_meters() -> None:
    assert grid(32618, 0.5, 0.1, 0, 0.1, -0.5, 0).areas(SQUARE) == pytest.approx([300 * 0.26])
    feet = grid(2263, 1, 0, 0, 0, -1, 0)
    assert feet.unit == "m2"
    assert feet.areas(SQUARE) == pytest.approx([300 * 0.3048006096**2])


@pytest.mark.parametrize("latitude", [0.0, 50.0, -70.0])
@pytest.mark.parametrize("epsg", [4326, 3857])
def test_areas_in_degrees_and_on_mercators_map_are_those_on_the_ellipsoid(epsg: int, latitude: float) -> None:
    if epsg == 4326:
        here = grid(4326, 1e-4, 0, 8.0, 0, -1e-4, latitude)
    else:
        y = 6378137 * np.arctanh(np.sin(np.radians(latitude)))
        here = grid(3857, 10, 0, 8e5, 0, -10, float(y))
    assert here.unit == "m2"
    degrees = here.to_degrees(here.place(SQUARE))[0]
    geodesic = abs(Geod(ellps="WGS84").geometry_area_perimeter(degrees)[0])
    assert here.areas(SQUARE) == pytest.approx([geodesic], rel=1e-5)


@pytest.mark.parametrize(
    ("epsg", "x", "y"),
    [(4087, 1e6, 6679169.0), (3413, 1e5, -2e5), (32633, -4e6, 6e6), (32662, 1e6, -6679169.0), (54030, 1e6, 6e6)],
)
def test_areas_on_other_maps_that_stretch_are_those_on_the_ellipsoid(epsg: int, x: float, y: float) -> None:
    crs = CRS.from_epsg(epsg) if epsg < 54000 else CRS.from_string(f"ESRI:{epsg}")
    here = grid(crs.to_wkt(), 20, 3, x, 1, -20, y)
    degrees = here.to_degrees(here.place(SQUARE))[0]
    geodesic = abs(Geod(ellps="WGS84").geometry_area_perimeter(degrees)[0])
    assert here.areas(SQUARE) == pytest.approx([geodesic], rel=1e-3)
    assert abs(geodesic / (300 * 403) - 1) > 0.015


@pytest.mark.parametrize("epsg", [3857, 4326, 4269, 3832, 32660])
def test_the_antimeridian_changes_no_area_and_leaves_no_gap(epsg: int) -> None:
    """The same squares along one parallel, some across 180 degrees."""
    size, y = (1e-4, 65.0) if epsg in (4326, 4269) else (10.0, 7.2e6 if epsg == 32660 else 9.6e6)
    edge = {3857: 20037508.34, 4326: 180.0, 4269: 180.0, 3832: 3339584.72, 32660: 641400.0}[epsg]
    here = grid(epsg, size, 0, edge - 50 * size, 0, -size, y)
    squares = np.array([shapely.box(col, 3, col + 10, 33) for col in range(5, 95, 10)])
    assert np.ptp(here.areas(squares)) < 1e-4 * here.areas(squares)[0]
    degrees = here.to_degrees(here.place(squares))
    assert max(right - left for left, _, right, _ in shapely.bounds(degrees)) < 0.01


@pytest.mark.parametrize("crs", [None, 32618])
def test_without_transform_pixels_hang_from_the_origin(crs: int | None) -> None:
    nowhere = grid(crs)
    assert nowhere.crs is None
    assert nowhere.unit == "px"
    assert nowhere.place(SQUARE)[0].bounds == (2, -33, 12, -3)
    assert nowhere.areas(SQUARE) == [300]
    assert nowhere.to_degrees(nowhere.place(SQUARE))[0].bounds == (2, -33, 12, -3)


def test_systems_that_are_nowhere_on_earth_are_refused_as_degrees() -> None:
    site = grid(CRS.from_wkt(LOCAL).to_wkt(), 1, 0, 0, 0, -1, 0)
    with pytest.raises(DataError, match=r"can't be turned into longitude and latitude, .*; write a \.gpkg"):
        site.to_degrees(site.place(SQUARE))
