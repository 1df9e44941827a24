"""Masks that are drawn as polygons: GeoJSON, GeoPackage and FlatGeobuf, burned onto an image's grid."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError, MissingExtraError
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.scene_sources import read_georeference

_DEFAULT_FIELD = "class"
_TEXT_SUFFIXES = (".geojson", ".json")
VECTOR_SUFFIXES = (*_TEXT_SUFFIXES, ".gpkg", ".fgb")
# What a GeoJSON file without "crs" is in (RFC 7946): longitude and latitude.
_DEFAULT_CRS = "OGC:CRS84"


@dataclass(frozen=True)
class VectorLabels:
    """How polygons become classes.

    Attributes:
        field: The attribute that holds a class's name or value; None is "class". Where None is given, no polygon has
            "class" and there are two classes, all polygons are one class: the one that isn't ``background``.
        background: The class of pixels that no polygon covers; None ignores them, or, where all polygons are one class
            of two, is the first class.
        tolerant: Whether polygons of an undeclared class are ignored instead of refused.
    """

    field: str | None = None
    background: str | None = None
    tolerant: bool = False


@dataclass(frozen=True)
class _Layer:
    """GeoJSON geometries (None for empty ones), the attribute asked for (None where absent), and all attributes."""

    crs: CRS
    geometries: list[dict[str, Any] | None]
    values: list[Any]
    fields: tuple[str, ...]


def is_vector(path: Path) -> bool:
    """Whether a mask is drawn as polygons, by its suffix."""
    return Path(path).suffix.lower() in VECTOR_SUFFIXES


def read_vector_mask(path: Path, image: Path, classes: ClassMap, labels: VectorLabels) -> NDArray[np.uint8]:
    """Burn polygons onto the grid of an image: a pixel belongs to the last polygon that holds its centre.

    Polygons are transformed into the image's coordinate reference system. Those without a class (null) are ignored.

    Returns:
        (H, W) class indices, 255 where ignored.

    Raises:
        FileError: A file is missing, unreadable or damaged.
        DataError: Image or polygons don't say where they lie; what is drawn isn't polygons; the attribute is missing.
        UndeclaredError: Polygons have a class that isn't declared; ``found`` counts their pixels.
        MissingExtraError: The format needs ``segshrink[vector]``.
    """
    path = Path(path)
    place = _checked_place(path, image)
    field = labels.field or _DEFAULT_FIELD
    read = _read_text if path.suffix.lower() in _TEXT_SUFFIXES else _read_binary
    layer = read(path, field)
    indices, background, undeclared = _meanings(path, layer, classes, labels)
    geometries = _on_grid(path, layer, place)
    if undeclared and not labels.tolerant:
        pixels = _pixels_of(geometries, layer.values, undeclared, place)
        told = ", ".join(f"{value} ({count} polygons)" for value, count in list(undeclared.items())[:8])
        raise UndeclaredError(
            f"undeclared classes in the attribute '{field}': {told}; declare them as classes, or empty the attribute "
            "of polygons to ignore",
            pixels,
        )
    return _burned(geometries, indices, place, fill=background)


def _checked_place(path: Path, image: Path) -> Georeference:
    place = read_georeference(image)
    if place.transform is None or place.crs is None:
        lacks = (
            "only ground control points" if place.gcps else "no place on the ground (no coordinate reference system)"
        )
        raise DataError(
            f"polygons can't be laid on {image}, which has {lacks}; give it a grid (gdalwarp, QGIS), or masks as images"
        )
    return place


def _read_text(path: Path, field: str) -> _Layer:
    """Read GeoJSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        features = list(_features(content))
        name = ((content.get("crs") or {}).get("properties") or {}).get("name", _DEFAULT_CRS)
        crs = CRS.from_user_input(name)
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    except CRSError as error:
        raise DataError(f"{path}: its 'crs' {name!r} is unknown; save it in another one") from error
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise FileError(f"{path} is no GeoJSON ({type(error).__name__}: {error}); write it again") from error
    attributes = [feature.get("properties") or {} for feature in features]
    return _Layer(
        crs,
        [feature.get("geometry") for feature in features],
        [entry.get(field) for entry in attributes],
        tuple(dict.fromkeys(name for entry in attributes for name in entry)),
    )


def _features(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = content["type"]
    if kind == "FeatureCollection":
        yield from content["features"]
    else:
        yield content if kind == "Feature" else {"type": "Feature", "geometry": content}


def _read_binary(path: Path, field: str) -> _Layer:
    """Read the only layer of polygons of what GDAL's vector drivers open."""
    try:
        import pyogrio
        import shapely
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.suffix} masks", "vector") from error
    if not path.is_file():
        raise FileError(f"{path} does not exist; check the path")
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) != 1:
            raise DataError(f"{path} has {len(layers)} layers ({', '.join(layers)}); keep one layer of polygons a file")
        fields = tuple(pyogrio.read_info(path, layer=layers[0])["fields"])
        columns = [field] if field in fields else []
        meta, _, shapes, values = pyogrio.raw.read(path, layer=layers[0], columns=columns)
        geometries = [None if shape is None else shapely.from_wkb(shape).__geo_interface__ for shape in shapes]
    except (RuntimeError, ValueError, shapely.errors.ShapelyError) as error:
        if isinstance(error, DataError):
            raise
        raise FileError(f"{path} can't be read as polygons ({error}); save it again") from error
    if not meta["crs"]:
        raise DataError(f"{path} doesn't say its coordinate reference system; set it (QGIS: assign projection)")
    found = [_plain(value) for value in values[0]] if columns else [None] * len(geometries)
    return _Layer(CRS.from_user_input(meta["crs"]), geometries, found, fields)


def _plain(value: Any) -> Any:
    """Return a number as Python's own, and NaN (numpy's way to say null) as None."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if plain != plain else plain


def _meanings(
    path: Path, layer: _Layer, classes: ClassMap, labels: VectorLabels
) -> tuple[list[int], int, Counter[Any]]:
    """Return the class index of each polygon, that of uncovered pixels, and how many polygons are of what else."""
    names = list(classes.names)
    if labels.background is not None and labels.background not in names:
        raise DataError(f"the background '{labels.background}' is no class; classes are {', '.join(names)}")
    background = IGNORE_INDEX if labels.background is None else names.index(labels.background)
    field = labels.field or _DEFAULT_FIELD
    if field not in layer.fields:
        if labels.field is None and len(names) == 2:
            background = 0 if background == IGNORE_INDEX else background
            return [1 - background] * len(layer.geometries), background, Counter()
        if layer.geometries:
            told = ", ".join(layer.fields[:8]) or "none"
            raise DataError(
                f"{path}: its polygons have no attribute '{field}' (they have: {told}); say with 'mask_field' which "
                "one names the class"
            )
    table = _table(classes)
    indices, undeclared = [], Counter[Any]()
    for value in layer.values:
        index = table.get(_key(value))
        if index is None:
            undeclared[value] += 1
        indices.append(IGNORE_INDEX if index is None else index)
    return indices, background, undeclared


def _table(classes: ClassMap) -> dict[Any, int]:
    """Return what an attribute may hold → class index."""
    table: dict[Any, int] = {None: IGNORE_INDEX}
    if classes.values is not None:
        table |= dict.fromkeys(map(str, classes.ignored_values), IGNORE_INDEX)
        table |= {str(value): index for index, value in enumerate(classes.values)}
    return table | {_key(name): index for index, name in enumerate(classes.names)}


def _key(value: Any) -> str | None:
    """Return a class's name or value as it is compared: in any case, 3.0 as 3; None for empty ones."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).strip().casefold() or None


def _on_grid(path: Path, layer: _Layer, place: Georeference) -> list[dict[str, Any] | None]:
    """Return the polygons in the image's coordinate reference system; None for empty ones."""
    kinds = {geometry["type"] for geometry in layer.geometries if geometry}
    if kinds - {"Polygon", "MultiPolygon"}:
        raise DataError(f"{path} holds {', '.join(sorted(kinds))}; masks are drawn as polygons")
    geometries = [geometry if geometry and geometry["coordinates"] else None for geometry in layer.geometries]
    drawn = [geometry for geometry in geometries if geometry]
    if layer.crs.is_geographic and any(abs(part) > 360 for geometry in drawn for part in _first(geometry)):
        raise DataError(
            f"{path} says that its coordinates are degrees, found {_first(drawn[0])}; save it in {_DEFAULT_CRS}, or "
            "with the 'crs' that they are in"
        )
    target = CRS.from_wkt(place.crs)
    if not drawn or layer.crs == target:
        return geometries
    try:
        moved = iter(transform_geom(layer.crs, target, drawn))
    except (RasterioError, CRSError, ValueError) as error:
        raise DataError(
            f"{path} ({layer.crs.to_string()[:60]}) can't be laid on its image, whose coordinate reference system is "
            f"{target.to_string()[:60]} ({error}); save it in that one"
        ) from error
    return [next(moved) if geometry else None for geometry in geometries]


def _first(geometry: dict[str, Any]) -> tuple[float, ...]:
    """Return the first corner."""
    corner = geometry["coordinates"]
    while corner and not isinstance(corner[0], int | float):
        corner = corner[0]
    return tuple(corner[:2])


def _burned(
    geometries: Sequence[dict[str, Any] | None], indices: Sequence[int], place: Georeference, *, fill: int
) -> NDArray[np.uint8]:
    shapes = [(geometry, index) for geometry, index in zip(geometries, indices, strict=True) if geometry]
    size = (place.height, place.width)
    if not shapes or place.transform is None:
        return np.full(size, fill, dtype=np.uint8)
    try:
        mask: NDArray[np.uint8] = rasterize(
            shapes, out_shape=size, transform=Affine(*place.transform), fill=fill, dtype="uint8"
        )
    except (RasterioError, ValueError) as error:
        raise DataError(f"a polygon can't be drawn ({error}); repair it (QGIS: fix geometries)") from error
    return mask


def _pixels_of(
    geometries: Sequence[dict[str, Any] | None], values: Sequence[Any], wanted: Counter[Any], place: Georeference
) -> dict[Any, int]:
    """Count the pixels of polygons by what their attribute says."""
    return {
        value: int(_burned(geometries, [int(found == value) for found in values], place, fill=0).sum(dtype=np.int64))
        for value in list(wanted)[:64]
    }
