from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio import features
from rasterio.crs import CRS
from rasterio.transform import Affine

from segshrink.classes import ClassMap
from segshrink.errors import DataError, FileError, MissingExtraError
from segshrink.imagery.cog import PROBABILITY_STEPS, open_cog
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.polygons import write_polygons
from segshrink.tiling import Window

shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")

CLASSES = ClassMap.build([("Häuser & Höfe", "#FF0000", None), ("b", "#00FF00", None), ("c", "#0000FF", None)])
UTM = CRS.from_epsg(32618).to_wkt()
TRANSFORM = (0.5, 0.0, 500000.0, 0.0, -0.5, 4500000.0)


def class_map(height: int = 60, width: int = 50, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (height // 4 + 1, width // 4 + 1))
    index = np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)[:height, :width]
    speckle = rng.random(index.shape) < 0.05
    return np.where(speckle, rng.integers(0, 3, index.shape), index).astype(np.uint8)


def raster(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    place = {"crs": UTM, "transform": TRANSFORM, **options.pop("place", {})}
    with open_cog(path, Georeference(*pixels.shape, **place), **options) as writer:
        writer.write(Window(0, 0, *pixels.shape), pixels)
    return path


def read(path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]], dict[str, Any]]:
    """Polygons, columns and what is known of the layer."""
    layer = "classes" if path.suffix == ".gpkg" else None
    meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer)
    return shapely.from_wkb(geometry), dict(zip(meta["fields"], columns, strict=True)), meta


def burned(polygons: NDArray[Any], numbers: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    shapes = list(zip(polygons, numbers.tolist(), strict=True))
    return features.rasterize(shapes, like.shape, fill=255, transform=Affine(*TRANSFORM), dtype="uint8")


@pytest.mark.parametrize("rows", [None, 7])
def test_geopackages_reproduce_the_map(tmp_path: Path, rows: int | None) -> None:
    index = class_map()
    out = tmp_path / "Häuser 1.gpkg"
    count = write_polygons(raster(tmp_path / "m.tif", index), out, CLASSES, strip_rows=rows)
    polygons, columns, meta = read(out)
    assert len(polygons) == count > 50
    assert shapely.is_valid(polygons).all()
    np.testing.assert_array_equal(burned(polygons, columns["class_index"], index), index)
    assert [CLASSES.names[number] for number in columns["class_index"]] == columns["class"].tolist()
    for number in range(3):
        pixels = np.count_nonzero(index == number)
        assert columns["area_m2"][columns["class_index"] == number].sum() == pytest.approx(pixels * 0.25)
    np.testing.assert_allclose(columns["area_m2"], shapely.area(polygons))
    assert meta["crs"] == "EPSG:32618"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_strips_make_no_difference(tmp_path: Path, suffix: str) -> None:
    source = raster(tmp_path / "m.tif", class_map())
    sure = raster(tmp_path / "c.tif", class_map(seed=1))
    found = []
    for rows in (7, 60):
        out = tmp_path / f"{rows}{suffix}"
        write_polygons(source, out, CLASSES, confidence=sure, strip_rows=rows)
        polygons, columns, _ = read(out)
        texts = [polygon.wkt for polygon in shapely.normalize(polygons)]
        found.append(sorted(zip(texts, *(column.tolist() for column in columns.values()), strict=True), key=str))
    assert str(found[0]) == str(found[1])


def test_geojson_is_in_degrees_with_exteriors_counter_clockwise(tmp_path: Path) -> None:
    index = class_map()
    write_polygons(raster(tmp_path / "m.tif", index), tmp_path / "m.geojson", CLASSES)
    collection = json.loads((tmp_path / "m.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    for feature in collection["features"]:
        exterior, *holes = feature["geometry"]["coordinates"]
        assert shapely.LinearRing(exterior).is_ccw
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)
        assert np.abs(np.array(exterior) - (-75, 40.65)).max() < 0.001
        assert feature["properties"]["class"] == CLASSES.names[feature["properties"]["class_index"]]
    assert any(len(feature["geometry"]["coordinates"]) > 1 for feature in collection["features"])


def test_confidence_is_the_mean_of_its_known_pixels(tmp_path: Path) -> None:
    index = class_map()
    stored = np.random.default_rng(5).integers(0, 256, index.shape).astype(np.uint8)
    stored[index == 2] = 255
    sure = raster(tmp_path / "c.tif", stored, scale=1 / PROBABILITY_STEPS)
    write_polygons(raster(tmp_path / "m.tif", index), tmp_path / "m.gpkg", CLASSES, confidence=sure, strip_rows=11)
    polygons, columns, _ = read(tmp_path / "m.gpkg")
    for polygon, number, mean in zip(polygons, columns["class_index"], columns["confidence"], strict=True):
        inside = features.rasterize([polygon], index.shape, transform=Affine(*TRANSFORM)) == 1
        values = stored[inside & (stored != 255)]
        if number == 2:
            assert np.isnan(mean)
        elif len(values):
            assert mean == pytest.approx(values.mean() / PROBABILITY_STEPS)
    write_polygons(tmp_path / "m.tif", tmp_path / "m.geojson", CLASSES, confidence=sure)
    attributes = [feature["properties"] for feature in json.loads((tmp_path / "m.geojson").read_text())["features"]]
    assert all((one["confidence"] is None) for one in attributes if one["class_index"] == 2)


def test_small_regions_are_dropped(tmp_path: Path) -> None:
    source = raster(tmp_path / "m.tif", class_map())
    everything = write_polygons(source, tmp_path / "all.gpkg", CLASSES)
    areas = read(tmp_path / "all.gpkg")[1]["area_m2"]
    kept = write_polygons(source, tmp_path / "large.gpkg", CLASSES, min_area=2.0)
    assert kept == np.count_nonzero(areas >= 2.0)
    assert 0 < kept < everything
    assert sorted(read(tmp_path / "large.gpkg")[1]["area_m2"]) == sorted(areas[areas >= 2.0])


def test_simplified_neighbors_keep_common_edges(tmp_path: Path) -> None:
    rows, cols = np.indices((120, 100))
    index = ((rows * 0.7 + 9 * np.sin(cols / 7)) // 15 % 3).astype(np.uint8)
    index[20:30, 40:50] = class_map(10, 10) % 3
    source = raster(tmp_path / "m.tif", index)
    write_polygons(source, tmp_path / "m.gpkg", CLASSES)
    write_polygons(source, tmp_path / "s.gpkg", CLASSES, simplify=0.8, strip_rows=7)
    exact, measured, _ = read(tmp_path / "m.gpkg")
    simple, columns, _ = read(tmp_path / "s.gpkg")
    assert len(simple) == len(exact)
    assert shapely.get_num_coordinates(simple).sum() < 0.4 * shapely.get_num_coordinates(exact).sum()
    assert shapely.is_valid(simple).all()
    assert shapely.coverage_is_valid(simple)
    together = shapely.union_all(simple)
    assert together.geom_type == "Polygon"
    assert len(together.interiors) == 0
    assert shapely.area(simple).sum() == pytest.approx(together.area)
    assert sorted(columns["area_m2"]) == sorted(measured["area_m2"])


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (4.5e-6, 0, 10, 0, -4.5e-6, 1e-4)),
        ("EPSG:4326", (9e-6, 0, 10, 0, -4.487e-6, 60)),
        ("EPSG:3857", (1.0, 0, 1e6, 0, -1.0, 8399738)),
        ("EPSG:2263", (0.5 / 0.3048, 0, 1e6, 0, -0.5 / 0.3048, 2e5)),
        ("EPSG:32640", (0.5, 0, 5e5, 0, -0.5, 2.8e6)),
    ],
)
def test_a_tolerance_in_meters_is_the_same_on_every_map(tmp_path: Path, crs: str, transform: Any) -> None:
    """Pixels of half a meter: the corners that are left are those of the same map in meters."""
    index = class_map()
    found = []
    for name, place in (("m", {}), ("other", {"crs": CRS.from_string(crs).to_wkt(), "transform": transform})):
        source = raster(tmp_path / f"{name}.tif", index, place=place)
        write_polygons(source, tmp_path / f"{name}.gpkg", CLASSES, simplify=0.9)
        found.append(shapely.get_num_coordinates(read(tmp_path / f"{name}.gpkg")[0]).tolist())
    assert sorted(found[0]) == sorted(found[1])
    write_polygons(tmp_path / "m.tif", tmp_path / "exact.gpkg", CLASSES)
    assert sum(found[0]) < 0.9 * shapely.get_num_coordinates(read(tmp_path / "exact.gpkg")[0]).sum()


def rings_of(geometry: dict[str, Any]) -> list[list[list[float]]]:
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [ring for part in parts for ring in part]


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        # Two kilometers around 180 degrees, 65 degrees north: on UTM's map 4 square kilometers, on Mercator's cos² phi.
        ("EPSG:32660", (100.0, 0, 639428.43, 0, -100.0, 7213811.3), 4.0e6),
        ("EPSG:3857", (100.0, 0, 20035508.34, 0, -100.0, 9610371.5), 7.175e5),
        ("EPSG:4326", (1e-3, 0, 179.98, 0, -1e-3, 65.02), 2.1e6),
        ("EPSG:4326", (1e-3, 0, -180.02, 0, -1e-3, 65.02), 2.1e6),
        ("EPSG:3832", (100.0, 0, 3339584.72 - 2000, 0, -100.0, 9610371.5), 7.15e5),
    ],
)
def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path, crs: str, transform: Any, area: float) -> None:
    index = np.zeros((40, 40), np.uint8)
    index[10:30, 10:30] = 1
    source = raster(tmp_path / "m.tif", index, place={"crs": CRS.from_string(crs).to_wkt(), "transform": transform})
    for out in (tmp_path / "m.geojson", tmp_path / "m.gpkg"):
        write_polygons(source, out, CLASSES)
        areas = dict(zip(*(read(out)[1][name].tolist() for name in ("class_index", "area_m2")), strict=True))
        assert areas[1] == pytest.approx(area, rel=0.02)
        assert areas[0] == pytest.approx(3 * areas[1], rel=0.001)
    features = json.loads((tmp_path / "m.geojson").read_text())["features"]
    assert len(features) == 2
    for feature in features:
        assert feature["geometry"]["type"] == "MultiPolygon"
        assert shapely.is_valid(shapely.geometry.shape(feature["geometry"]))
        for ring in rings_of(feature["geometry"]):
            longitudes = np.array(ring)[:, 0]
            assert np.abs(longitudes).max() == 180
            assert np.ptp(longitudes) < 0.1
        sides = {np.sign(ring[0][0]) for ring in rings_of(feature["geometry"])}
        assert sides == {-1, 1}
    assert write_polygons(source, tmp_path / "large.geojson", CLASSES, min_area=2 * area) == 1


def test_scenes_that_lie_nowhere_are_counted_in_pixels(tmp_path: Path) -> None:
    index = class_map()
    source = raster(tmp_path / "m.tif", index, place={"crs": None, "transform": None})
    for name in ("m.gpkg", "m.geojson"):
        write_polygons(source, tmp_path / name, CLASSES)
        polygons, columns, _ = read(tmp_path / name)
        assert columns["area_px"].sum() == np.count_nonzero(index != 255)
        assert shapely.total_bounds(polygons).tolist() == [0, -60, 50, 0]
    assert read(tmp_path / "m.gpkg")[2]["crs"] is None


@pytest.mark.parametrize("name", ["m.gpkg", "m.geojson"])
def test_a_map_without_classes_gives_an_empty_layer(tmp_path: Path, name: str) -> None:
    source = raster(tmp_path / "m.tif", np.full((1, 1), 255, dtype=np.uint8))
    assert write_polygons(source, tmp_path / name, CLASSES, simplify=1.0) == 0
    assert len(read(tmp_path / name)[0]) == 0


def test_geopackages_bring_their_style(tmp_path: Path) -> None:
    write_polygons(raster(tmp_path / "m.tif", class_map()), tmp_path / "m.gpkg", CLASSES)
    with closing(sqlite3.connect(tmp_path / "m.gpkg")) as database:
        ((table, geometry, qml, default),) = database.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        )
        assert database.execute(f"SELECT count({geometry}) FROM {table}").fetchone()[0] > 0  # noqa: S608
    assert default == 1
    assert '<category symbol="0" value="0" label="Häuser &amp; Höfe"' in qml
    assert 'name="color" value="255,0,0,255"' in qml


def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    source = raster(tmp_path / "m.tif", class_map())
    other = raster(tmp_path / "c.tif", class_map(30, 20))
    wrong = raster(tmp_path / "w.tif", np.full((9, 9), 3, dtype=np.uint8))
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out.gpkg"
    with pytest.raises(FileError, match=r"unknown suffix '\.shp'; use one of \.gpkg, \.geojson"):
        write_polygons(source, tmp_path / "out.shp", CLASSES)
    with pytest.raises(DataError, match=r"c\.tif has 30 × 20 pixels and .*m\.tif 60 × 50; give the confidence"):
        write_polygons(source, out, CLASSES, confidence=other)
    with pytest.raises(DataError, match=r"w\.tif holds the number 3 in rows 0 to 9, but there are 3 classes"):
        write_polygons(wrong, out, CLASSES)
    with pytest.raises(FileError, match="does not exist"):
        write_polygons(tmp_path / "missing.tif", out, CLASSES)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["m.gpkg", "m.geojson"])
@pytest.mark.parametrize("limit", [1 << 10, 120_000])
def test_a_full_disk_is_one_sentence_and_nothing_left(tmp_path: Path, name: str, limit: int, small_files: Any) -> None:
    source = raster(tmp_path / "m.tif", class_map(160, 160))
    before = sorted(tmp_path.iterdir())
    with small_files(limit), pytest.raises(FileError, match=r"can't write .*free some space"):
        write_polygons(source, tmp_path / name, CLASSES)
    assert sorted(tmp_path.iterdir()) == before


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(MissingExtraError, match=r"writing m\.gpkg needs .*\[vector\]"):
        write_polygons(tmp_path / "m.tif", tmp_path / "m.gpkg", CLASSES)
