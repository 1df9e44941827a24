"""Masks that are drawn as polygons: GeoJSON, GeoPackage and FlatGeobuf, burned onto an image's grid."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform_bounds, transform_geom

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError, SegshrinkError
from segshrink.extras import needing
from segshrink.file_search import is_file
from segshrink.formatting import listed
from segshrink.imagery.annotations import annotation_kind
from segshrink.imagery.geojson import DEFAULT_CRS, Features, checked_polygons, crs_named, read_geojson
from segshrink.imagery.georeference import Georeference, read_georeference
from segshrink.imagery.mask_options import ANY_LABEL, MaskOptions, label_key

_DEFAULT_FIELD = "class"
_TEXT_SUFFIXES = (".geojson", ".json")
VECTOR_SUFFIXES = (*_TEXT_SUFFIXES, ".gpkg", ".fgb")
# Formats that put the polygons into another order as they are written, that of their spatial index.
_UNORDERED_SUFFIXES = (".fgb",)
# How those files start that GDAL opens, so that it takes none for something else.
_SIGNATURES = {".gpkg": b"SQLite format 3\0", ".fgb": b"fgb"}
# What the schema of a GeoPackage holds: nothing that runs as it is read.
_PLAIN_SQL = re.compile(
    r"""CREATE\s+(TABLE|(UNIQUE\s+)?INDEX|TRIGGER|VIRTUAL\s+TABLE\s+("[^"]+"|\w+)\s+USING\s+rtree\s*\()""",
    re.IGNORECASE,
)


def is_vector(path: Path) -> bool:
    """Whether a mask is drawn as polygons on the ground, by its suffix and, of .json, its content."""
    suffix = Path(path).suffix.lower()
    return suffix in VECTOR_SUFFIXES and not (suffix == ".json" and annotation_kind(path))


def read_vector_mask(path: Path, image: Path, classes: ClassMap, options: MaskOptions) -> NDArray[np.uint8]:
    """Burn polygons onto the grid of an image: a pixel belongs to the last polygon that holds its center.

    Polygons are transformed into the image's coordinate reference system. Those without a class (null) are ignored.
    A file may hold the polygons of many images; only those near the image are looked at.

    Returns:
        (H, W) class indices, 255 where ignored.

    Raises:
        FileError: A file is missing, unreadable or damaged.
        DataError: Image or polygons don't say where they lie; what is drawn isn't polygons; the attribute is missing;
            polygons of different classes lie over each other in a format that doesn't keep their order.
        UndeclaredError: Polygons have a class that isn't declared; ``found`` counts their pixels.
        MissingExtraError: The format needs ``segshrink[vector]``.
    """
    path = Path(path)
    place = _checked_place(image)
    field = options.field or _DEFAULT_FIELD
    layer = read_features(path, field, near=place)
    indices, background, undeclared = _meanings(path, layer, classes, options)
    geometries = on_grid(path, layer, place)
    if undeclared and not options.tolerant:
        pixels = _pixels_of(geometries, layer.values, undeclared, place)
        values = listed([f"{value} ({count} polygons)" for value, count in undeclared.items()], 8)
        raise UndeclaredError(
            f"undeclared classes in the attribute '{field}': {values}; declare them as classes, or empty the attribute "
            "of polygons to ignore",
            pixels,
        )
    if path.suffix.lower() in _UNORDERED_SUFFIXES:
        _refuse_overlaps(path, image, geometries, indices, place)
    return burned(geometries, indices, place, fill=background)


def _refuse_overlaps(
    path: Path, image: Path, geometries: Sequence[dict[str, Any] | None], indices: Sequence[int], place: Georeference
) -> None:
    """Refuse polygons of different classes that lie over each other: which was drawn last isn't known."""
    # A little aside, because where neighbors meet in a pixel's center both burn it.
    a, b, c, d, e, f = Affine(*(place.transform or Affine.identity()))[:6]
    grid = replace(place, transform=(a, b, c + 0.013 * a + 0.017 * b, d, e, f + 0.013 * d + 0.017 * e))
    ascending = np.argsort(indices, kind="stable")
    highest, lowest = (
        burned([geometries[at] for at in order], [indices[at] for at in order], grid, fill=0)
        for order in (ascending, ascending[::-1])
    )
    if pixels := np.count_nonzero(highest != lowest):
        raise DataError(
            f"{path}: polygons of different classes lie over each other in {pixels} pixels of {image}, and a "
            f"{path.suffix} file doesn't keep which was drawn last; save them, from where they were drawn, as .gpkg or "
            ".geojson"
        )


def attribute_values(path: Path, field: str) -> tuple[tuple[str, ...], list[Any]]:
    """Return the names of all attributes of a file's polygons, and the values of one.

    Raises:
        FileError, DataError, MissingExtraError: As ``read_vector_mask``.
    """
    layer = read_features(path, field)
    return layer.fields, layer.values


def misplaced(path: Path, image: Path) -> str | None:
    """Say why no polygon of a file touches its image, and the likely cause; None where one does, or there is none.

    Raises:
        FileError, DataError, MissingExtraError: As ``read_vector_mask``.
    """
    place = _checked_place(image)
    layer = read_features(path, _DEFAULT_FIELD)
    drawn = [geometry for geometry in layer.geometries if geometry and geometry["coordinates"]]
    bounds = [rasterio.features.bounds(geometry) for geometry in drawn]
    if not drawn or _touches(bounds, layer.crs, place):
        return None
    target, degrees = CRS.from_wkt(str(place.crs)), CRS.from_user_input(DEFAULT_CRS)
    swapped = [(bottom, left, top, right) for left, bottom, right, top in bounds]
    lefts, bottoms, rights, tops = zip(*bounds, strict=True)
    west, south, east, north = min(lefts), min(bottoms), max(rights), max(tops)
    where = f"they lie from {west:g}, {south:g} to {east:g}, {north:g} in {layer.crs.to_string()[:60]}"
    for crs, boxes, cause in (
        (layer.crs, swapped, "latitude stands first, where longitude (x) must: exchange the two"),
        (target, bounds, "they are in the image's coordinate reference system already: name it in the file"),
        (target, swapped, "they are in the image's coordinate reference system, but y stands first: exchange the two"),
        (degrees, bounds, "they are longitudes and latitudes: name OGC:CRS84 in the file"),
        (degrees, swapped, "they are latitudes and longitudes, latitude first: exchange the two"),
        (CRS.from_epsg(3857), bounds, "they are in Web Mercator: name EPSG:3857 in the file"),
    ):
        if _touches(boxes, crs, place):
            return f"{where}; probably {cause}"
    if max(abs(west), abs(east)) <= place.width and max(abs(south), abs(north)) <= place.height:
        return f"{where}; probably they are pixels: export them with the image's coordinates"
    return f"{where}; check the coordinate reference system, or whether they belong to another image"


def _touches(bounds: Sequence[tuple[float, ...]], crs: CRS, place: Georeference) -> bool:
    """Whether a box (left, bottom, right, top) lies over the image's grid, at least in part."""
    to_pixels = ~Affine(*place.transform) if place.transform else Affine.identity()
    for box in bounds:
        try:
            left, bottom, right, top = transform_bounds(crs, CRS.from_wkt(str(place.crs)), *box)
        except (RasterioError, CRSError, ValueError):
            continue  # such coordinates don't exist there
        corners = [(x, y) for x in (left, right) for y in (bottom, top)]
        columns = [to_pixels.a * x + to_pixels.b * y + to_pixels.c for x, y in corners]
        rows = [to_pixels.d * x + to_pixels.e * y + to_pixels.f for x, y in corners]
        if max(columns) > 0 and min(columns) < place.width and max(rows) > 0 and min(rows) < place.height:
            return True
    return False


def _checked_place(image: Path) -> Georeference:
    place = read_georeference(image)
    if place.transform is None or place.crs is None:
        lacks = (
            "only ground control points" if place.gcps else "no place on the ground (no coordinate reference system)"
        )
        raise DataError(
            f"polygons can't be laid on {image}, which has {lacks}; give it a grid (gdalwarp, QGIS), or masks as images"
        )
    return place


def read_features(path: Path, field: str, *, near: Georeference | None = None) -> Features:
    """Read polygons; where ``near`` is given those whose bounds touch that grid, of others perhaps."""
    if path.suffix.lower() not in _TEXT_SUFFIXES:
        return _read_binary(path, field, near)
    if not is_file(path):
        raise FileError(f"{path} does not exist or is no file; check the path")
    status = path.stat()
    layer, bounds = _bounded_geojson(path, field, status.st_mtime_ns, status.st_size)
    box = None if near is None else _box_in(layer.crs, near)
    if box is None or (layer.crs.is_geographic and (np.abs(bounds) > 360).any()):
        return layer
    left, bottom, right, top = bounds.T
    kept = np.flatnonzero(~((left > box[2]) | (right < box[0]) | (bottom > box[3]) | (top < box[1])))
    return layer._replace(
        geometries=[layer.geometries[place] for place in kept], values=[layer.values[place] for place in kept]
    )


@lru_cache(maxsize=4)
def _bounded_geojson(path: Path, field: str, modified: int, size: int) -> tuple[Features, NDArray[np.float64]]:
    """Read a file once, however many images it covers, and the bounds of its polygons, NaN without any, (N, 4).

    The other arguments tell when the file has changed.
    """
    layer = read_geojson(path, field)
    bounds = [
        rasterio.features.bounds(geometry) if geometry and geometry["coordinates"] else (np.nan,) * 4
        for geometry in layer.geometries
    ]
    return layer, np.array(bounds, dtype=np.float64).reshape(-1, 4)


def _box_in(crs: CRS, place: Georeference) -> tuple[float, float, float, float] | None:
    """Return the bounds of a grid in a coordinate reference system, a tenth wider; None where they don't exist."""
    ground = Affine(*(place.transform or Affine.identity()))
    corners = list(itertools.product((0, place.width), (0, place.height)))
    xs = [ground.a * col + ground.b * row + ground.c for col, row in corners]
    ys = [ground.d * col + ground.e * row + ground.f for col, row in corners]
    try:
        left, bottom, right, top = transform_bounds(
            CRS.from_wkt(str(place.crs)), crs, min(xs), min(ys), max(xs), max(ys)
        )
    except (RasterioError, CRSError, ValueError):
        return None
    if not np.isfinite((left, bottom, right, top)).all() or left > right:  # it crosses the date line
        return None
    across, up = 0.1 * (right - left), 0.1 * (top - bottom)
    return left - across, bottom - up, right + across, top + up


def _read_binary(path: Path, field: str, near: Georeference | None) -> Features:
    """Read the only layer of polygons of what GDAL's vector drivers open."""
    with needing(f"reading {path.suffix} masks", "vector"):
        import pyogrio
        import shapely
    try:
        _refuse_foreign(path)
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            raise DataError(f"{path} has {len(layers)} layers ({', '.join(layers)}); keep one layer of polygons a file")
        info = pyogrio.read_info(path, layer=layers[0])
        if not info["crs"]:
            raise DataError(f"{path} doesn't say its coordinate reference system; set it (QGIS: assign projection)")
        crs, fields = crs_named(info["crs"], path), tuple(info["fields"])
        columns = [field] if field in fields else []
        box = None if near is None else _box_in(crs, near)
        _, numbers, shapes, values = pyogrio.raw.read(
            path, layer=layers[0], columns=columns, bbox=box, return_fids=True
        )
        drawn = np.argsort(numbers)  # with a box they come in the order of the spatial index
        geometries = [
            None if shape is None else checked_polygons(shapely.from_wkb(shape).__geo_interface__)
            for shape in shapes[drawn]
        ]
    except SegshrinkError:
        raise
    except (RuntimeError, ValueError, sqlite3.Error, shapely.errors.ShapelyError) as error:
        raise FileError(f"{path} can't be read as polygons ({error}); save it again") from error
    attributes = [_python_value(value) for value in values[0][drawn]] if columns else [None] * len(geometries)
    return Features(crs, geometries, attributes, fields, drawn=info["features"] != 0)


def _refuse_foreign(path: Path) -> None:
    """Refuse what GDAL would open as another format, and tables that aren't stored but made as they are read."""
    if not is_file(path):
        raise FileError(f"{path} does not exist or is no file; check the path")
    suffix = path.suffix.lower()
    with path.open("rb") as stream:
        if not stream.read(16).startswith(_SIGNATURES[suffix]):
            raise FileError(f"{path} can't be read as polygons: it is no {suffix} file; save it again")
    if suffix == ".gpkg":
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            schema = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        odd = [str(name) for name, sql in schema if not _PLAIN_SQL.match(str(sql))]
        if odd:
            raise FileError(f"{path} holds views or virtual tables ({listed(odd)}); save it with plain layers only")


def _python_value(value: Any) -> Any:
    """Return a number as Python's own, and NaN (numpy's way to say null) as None."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain


def _meanings(
    path: Path, layer: Features, classes: ClassMap, options: MaskOptions
) -> tuple[list[int], int, Counter[Any]]:
    """Return the class index of each polygon, that of uncovered pixels, and how many polygons are of what else."""
    background = options.background_index(classes)
    field = options.field or _DEFAULT_FIELD
    if field not in layer.fields and layer.drawn:
        if options.field is None and len(classes) == 2:
            background = 0 if background == IGNORE_INDEX else background
            return [1 - background] * len(layer.geometries), background, Counter()
        fields = ", ".join(layer.fields[:8]) or "none"
        raise DataError(
            f"{path}: its polygons have no attribute '{field}' (they have: {fields}); say with 'mask_field' which "
            "one names the class"
        )
    table = _values_table(classes) | options.label_table(classes)
    indices, undeclared = [], Counter[Any]()
    for value in layer.values:
        index = table.get(label_key(value), table.get(ANY_LABEL))
        if index is None:
            undeclared[value] += 1
        indices.append(IGNORE_INDEX if index is None else index)
    return indices, background, undeclared


def _values_table(classes: ClassMap) -> dict[str | None, int]:
    """Return the numbers that an attribute may hold, as texts → class index."""
    if classes.values is None:
        return {}
    table: dict[str | None, int] = dict.fromkeys(map(str, classes.ignored_values), IGNORE_INDEX)
    table |= {str(value): index for index, value in enumerate(classes.values)}
    return table | {str(value): index for value, index in classes.more_values}


def on_grid(path: Path, layer: Features, place: Georeference) -> list[dict[str, Any] | None]:
    """Return the polygons in the image's coordinate reference system; None for empty ones."""
    kinds = {geometry["type"] for geometry in layer.geometries if geometry}
    if kinds - {"Polygon", "MultiPolygon"}:
        raise DataError(f"{path} holds {', '.join(sorted(kinds))}; masks are drawn as polygons")
    geometries = layer.geometries
    drawn = [geometry for geometry in geometries if geometry]
    if layer.crs.is_geographic and any(abs(part) > 360 for geometry in drawn for part in _first(geometry)):
        raise DataError(
            f"{path} says that its coordinates are degrees, found {_first(drawn[0])}; save it in {DEFAULT_CRS}, or "
            "with the 'crs' that they are in"
        )
    target = CRS.from_wkt(place.crs)
    if not drawn or layer.crs == target:
        return geometries
    try:
        moved = iter([checked_polygons(geometry) for geometry in transform_geom(layer.crs, target, drawn)])
    except (RasterioError, CRSError, ValueError) as error:
        raise DataError(
            f"{path} ({layer.crs.to_string()[:60]}) can't be laid on its image, whose coordinate reference system is "
            f"{target.to_string()[:60]} ({error}); save it in that one"
        ) from error
    return [next(moved) if geometry else None for geometry in geometries]


def _first(geometry: dict[str, Any]) -> tuple[float, ...]:
    """Return the first corner."""
    corner = geometry["coordinates"]
    while not isinstance(corner[0], float):
        corner = corner[0]
    return tuple(corner)


def burned(
    geometries: Sequence[dict[str, Any] | None], indices: Sequence[int], place: Georeference, *, fill: int
) -> NDArray[np.uint8]:
    """Draw each polygon's number on a grid in whose coordinates they are: (H, W), ``fill`` where none is.

    Raises:
        DataError: A polygon can't be drawn.
    """
    shapes = [(geometry, index) for geometry, index in zip(geometries, indices, strict=True) if geometry]
    size = (place.height, place.width)
    if not shapes or place.transform is None:
        return np.full(size, fill, dtype=np.uint8)
    try:
        mask: NDArray[np.uint8] = rasterio.features.rasterize(
            shapes, out_shape=size, transform=Affine(*place.transform), fill=fill, dtype="uint8"
        )
    except (RasterioError, ValueError) as error:
        raise DataError(f"a polygon can't be drawn ({error}); repair it (QGIS: fix geometries)") from error
    return mask


def _pixels_of(
    geometries: Sequence[dict[str, Any] | None], values: Sequence[Any], undeclared: Counter[Any], place: Georeference
) -> dict[Any, int]:
    """Count the pixels of polygons by what their attribute says."""
    return {
        value: int(burned(geometries, [int(other == value) for other in values], place, fill=0).sum(dtype=np.int64))
        for value in list(undeclared)[:64]
    }
