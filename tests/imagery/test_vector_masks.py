"""Polygons burned onto an image's grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from segshrink.classes import ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError, MissingExtraError
from segshrink.imagery import MaskOptions, read_mask

Paint = Callable[..., Path]
CLASSES = ClassMap.build([("ground", None, None), ("house", None, None)])
THREE = ClassMap.build([("ground", None, 0), ("house", None, 3), ("road", None, 7)])
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
PIXELS = np.ones((40, 60, 3), dtype=np.uint8)
EMPTY: dict[str, Any] = {"type": "MultiPolygon", "coordinates": []}


def box(row: float, col: float, height: float, width: float) -> dict[str, Any]:
    """Return a rectangle of pixels on the ground."""
    rows, cols = (row, row, row + height, row + height, row), (col, col + width, col + width, col, col)
    corners = [[5e5 + 0.5 * c, 5e6 - 0.5 * r] for r, c in zip(rows, cols, strict=True)]
    return {"type": "Polygon", "coordinates": [corners]}


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Write polygons as GeoJSON: (geometry, properties) each, in the image's system unless ``crs`` says another."""

    def write(*features: tuple[dict[str, Any] | None, dict[str, Any]], crs: str | None = "EPSG:32633") -> Path:
        path = tmp_path / "labels.geojson"
        content: dict[str, Any] = {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": shape, "properties": told} for shape, told in features],
        }
        if crs is not None:
            content["crs"] = {"type": "name", "properties": {"name": crs}}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_classes_are_told_by_the_attribute(paint: Paint, draw: Callable[..., Path]) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    path = draw(
        (box(2, 3, 10, 20), {"class": "house"}),
        (box(5, 5, 4, 4), {"class": " Road "}),
        (box(20, 0, 5, 60), {"class": 3.0}),
        (box(30, 0, 5, 5), {"class": "7"}),
        (box(35, 0, 5, 5), {"class": None}),
        (None, {"class": "house"}),
    )
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[2:12, 3:23] = 1
    expected[5:9, 5:9] = 2
    expected[20:25] = 1
    expected[30:35, :5] = 2
    expected[35:, :5] = 255

    with_ground = read_mask(path, THREE, image=image, options=MaskOptions(background="ground"))
    np.testing.assert_array_equal(with_ground, expected)

    without = read_mask(path, THREE, image=image)
    expected[expected == 0] = 255
    np.testing.assert_array_equal(without, expected)


def test_polygons_without_attribute_are_the_other_of_two_classes(paint: Paint, draw: Callable[..., Path]) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    path = draw((box(2, 3, 10, 20), {"name": "x"}))
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[2:12, 3:23] = 1

    np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), expected)
    turned = read_mask(path, CLASSES, image=image, options=MaskOptions(background="house"))
    np.testing.assert_array_equal(turned, 1 - expected)
    with pytest.raises(DataError, match=r"no attribute 'class' \(they have: name\); say with 'mask_field'"):
        read_mask(path, THREE, image=image)
    with pytest.raises(DataError, match="no attribute 'kind'"):
        read_mask(path, CLASSES, image=image, options=MaskOptions(field="kind"))


@pytest.mark.parametrize("features", [(), ((None, {"name": "x"}),), ((EMPTY, {}), (None, {}))])
def test_no_polygon_at_all_is_ignored_but_for_a_background(
    paint: Paint, draw: Callable[..., Path], features: tuple[Any, ...]
) -> None:
    image = paint("image.tif", PIXELS, **PLACE)

    for classes in (CLASSES, THREE):
        assert (read_mask(draw(*features), classes, image=image) == 255).all()
        for index, name in enumerate(classes.names):
            mask = read_mask(draw(*features), classes, image=image, options=MaskOptions(background=name))
            assert (mask == index).all()


def test_an_empty_geopackage_is_ignored_as_well(paint: Paint, tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    image = paint("image.tif", PIXELS, **PLACE)
    pyogrio.raw.write(
        tmp_path / "empty.gpkg",
        geometry=np.array([], dtype=object),
        field_data=[np.array([], dtype=object)],
        fields=["name"],
        geometry_type="Polygon",
        crs="EPSG:32633",
    )

    assert (read_mask(tmp_path / "empty.gpkg", CLASSES, image=image) == 255).all()


@pytest.mark.parametrize("crs", [None, "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326", "urn:ogc:def:crs:EPSG::3857"])
def test_polygons_are_moved_into_the_images_system(paint: Paint, draw: Callable[..., Path], crs: str | None) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    system = {"urn:ogc:def:crs:EPSG::3857": "EPSG:3857"}.get(crs or "", "OGC:CRS84")
    shape = transform_geom("EPSG:32633", system, box(10.2, 20.2, 10, 10))

    mask = read_mask(draw((shape, {}), crs=crs), CLASSES, image=image)

    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[10:20, 20:30] = 1
    np.testing.assert_array_equal(mask, expected)


def test_a_hole_stays_open_and_many_parts_are_one(paint: Paint, draw: Callable[..., Path]) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    outer, inner, other = (box(*place)["coordinates"][0] for place in ((0, 0, 9, 9), (3, 3, 3, 3), (20, 20, 5, 5)))

    mask = read_mask(
        draw(({"type": "MultiPolygon", "coordinates": [[outer, inner], [other]]}, {})), CLASSES, image=image
    )

    assert mask.sum() == 81 - 9 + 25
    assert mask[4, 4] == 0
    assert mask[22, 22] == 1


def test_undeclared_classes_are_told_with_their_pixels(paint: Paint, draw: Callable[..., Path]) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    path = draw((box(0, 0, 5, 5), {"class": "shed"}), (box(9, 0, 5, 6), {"class": "house"}))

    with pytest.raises(UndeclaredError, match=r"labels\.geojson: undeclared classes .*: shed \(1 polygons\)") as caught:
        read_mask(path, THREE, image=image)
    assert caught.value.found == {"shed": 25}
    mask = read_mask(path, THREE, image=image, options=MaskOptions(background="ground", tolerant=True))
    assert (mask == 255).sum() == 25
    assert (mask == 1).sum() == 30


def test_images_and_polygons_that_say_not_where_they_lie_are_refused(paint: Paint, draw: Callable[..., Path]) -> None:
    path = draw((box(0, 0, 5, 5), {}))

    with pytest.raises(DataError, match=r"can't be laid on .*plain\.tif, which has no place on the ground"):
        read_mask(path, CLASSES, image=paint("plain.tif", PIXELS))
    image = paint("image.tif", PIXELS, **PLACE)
    with pytest.raises(DataError, match="need an image to be laid on"):
        read_mask(path, CLASSES)
    with pytest.raises(DataError, match=r"says that its coordinates are degrees, found \(500000"):
        read_mask(draw((box(0, 0, 5, 5), {}), crs=None), CLASSES, image=image)
    with pytest.raises(DataError, match="its 'crs' 'nonsense' is unknown"):
        read_mask(draw((box(0, 0, 5, 5), {}), crs="nonsense"), CLASSES, image=image)


@pytest.mark.parametrize("content", ["", "[1]", '{"type": "FeatureCollection"}', '{"a": 1}', "\x00\x01"])
def test_what_is_no_geojson_is_refused(paint: Paint, tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.geojson"
    path.write_text(content)

    with pytest.raises(FileError, match=r"labels\.geojson is no GeoJSON"):
        read_mask(path, CLASSES, image=paint("image.tif", PIXELS, **PLACE))


def test_points_are_no_mask(paint: Paint, draw: Callable[..., Path]) -> None:
    path = draw(({"type": "Point", "coordinates": [5e5, 5e6]}, {}))

    with pytest.raises(DataError, match="holds Point; masks are drawn as polygons"):
        read_mask(path, CLASSES, image=paint("image.tif", PIXELS, **PLACE))


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_geopackages_give_what_geojson_gives(paint: Paint, tmp_path: Path, suffix: str) -> None:
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    image = paint("image.tif", PIXELS, **PLACE)
    path = tmp_path / f"labels {suffix[1:]}ä{suffix}"
    shapes = [shapely.geometry.shape(box(*place)) for place in ((1, 1, 5, 5), (10, 10, 4, 4), (20, 20, 3, 3))]
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(shapes),
        field_data=[np.array(["house", "road", None], dtype=object)],
        fields=["class"],
        geometry_type="Polygon",
        crs="EPSG:32633",
    )

    mask = read_mask(path, THREE, image=image, options=MaskOptions(background="ground"))

    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[1:6, 1:6] = 1
    expected[10:14, 10:14] = 2
    expected[20:23, 20:23] = 255
    np.testing.assert_array_equal(mask, expected)
    assert read_mask(path, CLASSES, image=image, options=MaskOptions(tolerant=True)).max() == 255


def write_boxes(path: Path, boxes: list[tuple[float, float, float, float]], names: list[str]) -> Path:
    """Write rectangles of pixels, each with its class."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    shapes = np.array([shapely.to_wkb(shapely.geometry.shape(box(*each))) for each in boxes], dtype=object)
    attributes = {"field_data": [np.array(names, dtype=object)], "fields": ["class"]}
    pyogrio.raw.write(path, geometry=shapes, **attributes, geometry_type="Polygon", crs="EPSG:32633", layer="roofs")
    return path


def test_in_a_geopackage_the_polygon_drawn_last_counts(paint: Paint, tmp_path: Path) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    generator = np.random.default_rng(0)
    boxes, names = [(0, 0, 40, 60)], ["ground"]
    expected = np.zeros((40, 60), dtype=np.uint8)
    for row, col, index in generator.integers((-40, -60, 0), (80, 120, 3), (300, 3)).tolist():
        boxes.append((row, col, 9, 9))
        names.append(THREE.names[index])
        expected[max(row, 0) : max(row + 9, 0), max(col, 0) : max(col + 9, 0)] = index
    path = write_boxes(tmp_path / "labels.gpkg", boxes, names)
    np.testing.assert_array_equal(read_mask(path, THREE, image=image), expected)


def test_overlapping_classes_are_refused_where_their_order_is_lost(paint: Paint, tmp_path: Path) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    path = write_boxes(tmp_path / "a.fgb", [(0, 0, 9, 9), (5, 5, 9, 9), (2, 2, 9, 9)], ["house", "road", "house"])
    with pytest.raises(DataError, match=r"in 36 pixels of .*image\.tif.* save them, .* as \.gpkg"):
        read_mask(path, THREE, image=image)


@pytest.mark.parametrize("shift", [0, 0.5])
def test_neighbors_do_not_overlap(paint: Paint, tmp_path: Path, shift: float) -> None:
    """Borders through the centers of pixels belong to either."""
    image = paint("image.tif", PIXELS, **PLACE)
    boxes = [(row + shift, col + shift, 5, 5) for row in range(5, 35, 5) for col in range(5, 55, 5)]
    path = write_boxes(tmp_path / "a.fgb", boxes, ["house", "road"] * 30)
    assert np.bincount(read_mask(path, THREE, image=image)[11:34, 11:54].reshape(-1), minlength=256)[255] == 0


def test_damaged_geopackages_are_refused(paint: Paint, tmp_path: Path) -> None:
    pytest.importorskip("pyogrio")
    image = paint("image.tif", PIXELS, **PLACE)
    (tmp_path / "labels.gpkg").write_bytes(b"SQLite format 3\0 and no more")

    with pytest.raises(FileError, match=r"labels\.gpkg can't be read as polygons"):
        read_mask(tmp_path / "labels.gpkg", CLASSES, image=image)
    with pytest.raises(FileError, match=r"gone\.gpkg does not exist"):
        read_mask(tmp_path / "gone.gpkg", CLASSES, image=image)


def test_a_missing_library_is_named(paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    (tmp_path / "labels.gpkg").touch()

    with pytest.raises(MissingExtraError, match=r"reading \.gpkg masks needs .*\[vector\]"):
        read_mask(tmp_path / "labels.gpkg", CLASSES, image=paint("image.tif", PIXELS, **PLACE))


def test_a_raster_mask_must_lie_where_its_image_lies(paint: Paint) -> None:
    image = paint("image.tif", PIXELS, **PLACE)
    index = np.zeros((40, 60), dtype=np.uint8)
    index[3, 4] = 1
    here = paint("here.tif", index, **PLACE)
    nowhere = paint("nowhere.tif", index)
    elsewhere = paint("else.tif", index, crs="EPSG:32633", transform=Affine(0.5, 0, 5e5 + 20, 0, -0.5, 5e6))

    for path in (here, nowhere):
        np.testing.assert_array_equal(read_mask(path, CLASSES, image=image), index)
    with pytest.raises(DataError, match=r"else\.tif lies elsewhere than its image .*warp it onto the image's grid"):
        read_mask(elsewhere, CLASSES, image=image)


def test_real_footprints_have_their_area(shared_data: Path) -> None:
    shapely = pytest.importorskip("shapely")
    folder = shared_data / "geotiff"
    features = json.loads((folder / "geotiff_labels.geojson").read_text())["features"]
    with rasterio.open(folder / "sample_geotiff.tif") as dataset:
        frame = shapely.box(*dataset.bounds)
    houses = shapely.union_all([shapely.geometry.shape(feature["geometry"]) for feature in features])

    burned = read_mask(folder / "geotiff_labels.geojson", CLASSES, image=folder / "sample_geotiff.tif")

    assert burned.sum() * 0.25 == pytest.approx(houses.intersection(frame).area, rel=0.01)
