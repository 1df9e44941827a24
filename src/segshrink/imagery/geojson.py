"""GeoJSON, checked feature by feature before anything is made of it, and names of coordinate reference systems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError

from segshrink.errors import DataError, FileError
from segshrink.file_search import is_file
from segshrink.formatting import shortened

# What a GeoJSON file without "crs" is in (RFC 7946): longitude and latitude.
DEFAULT_CRS = "OGC:CRS84"
_KINDS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection")
# JSON's types as errors call them.
_TYPES = {dict: "an object", list: "a list", tuple: "a list", str: "a text", type(None): "missing or null"}
# No map reaches so far, in whatever unit.
_FARTHEST = 1e12
# An authority and its code, plain, as URN or as OGC's URL. All else could be a file's name or make GDAL ask a server.
_CRS_NAME = re.compile(
    r"(?:urn:(?:x-)?ogc:def:crs:|https?://(?:www\.)?opengis\.net/def/crs/)?"
    r"(EPSG|ESRI|OGC|IGNF|IAU_?\d*)[:/](?:[\w.]*[:/])?(\w{1,16})",
    re.IGNORECASE | re.ASCII,
)
_CRS_WKT = re.compile(r"[A-Z_]+\s*[\[(]")


class Features(NamedTuple):
    """GeoJSON geometries (None for empty ones), the value of one attribute (None where absent), all attributes.

    ``drawn`` says whether the file holds any geometry, be it left out here.
    """

    crs: CRS
    geometries: list[dict[str, Any] | None]
    values: list[Any]
    fields: tuple[str, ...]
    drawn: bool


def read_geojson(path: Path, field: str) -> Features:
    """Read the polygons of a GeoJSON file and one of their attributes.

    Raises:
        FileError: The file is unreadable, or a feature, which is named by its number, isn't as RFC 7946 says.
        DataError: The coordinate reference system is unknown.
    """
    if not is_file(path):
        raise FileError(f"{path} does not exist or is no file; check the path")
    try:
        content = _typed(json.loads(path.read_text(encoding="utf-8-sig")), dict, "it")
        name = _crs_name(content)
        geometries, values, fields = [], [], dict[str, None]()
        for number, feature in enumerate(_features(content), start=1):
            try:
                geometry, attributes = _checked(feature, field)
            except ValueError as error:
                raise ValueError(f"feature {number}: {error}") from error
            geometries.append(geometry)
            values.append(attributes.get(field))
            fields |= dict.fromkeys(attributes)
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is no GeoJSON ({error}); write it again") from error
    return Features(crs_named(name, path), geometries, values, tuple(fields), any(geometries))


def crs_named(name: str, path: Path) -> CRS:
    """Return a coordinate reference system by its authority's code or its WKT; never asks a server.

    Raises:
        DataError: There is no such system.
    """
    code = _CRS_NAME.fullmatch({"CRS84": DEFAULT_CRS, "WGS84": DEFAULT_CRS}.get(name, name))
    try:
        with rasterio.Env():  # outside of one, GDAL prints its errors
            if code:
                return CRS.from_user_input(f"{code[1].upper()}:{code[2]}")
            if _CRS_WKT.match(name):
                return CRS.from_wkt(name)
    except (CRSError, OverflowError, ValueError) as error:
        raise DataError(f"{path}: its 'crs' {shortened(name, 100)!r} is unknown; save it in another one") from error
    raise DataError(f"{path}: its 'crs' {shortened(name, 100)!r} is unknown; name it by a code, such as EPSG:32633")


def checked_polygons(geometry: dict[str, Any]) -> dict[str, Any] | None:
    """Check a geometry and return it flat, (x, y) corners only; None for an empty one.

    Others than polygons are returned without coordinates.

    Raises:
        ValueError: It isn't as RFC 7946 says, or a coordinate isn't a number that a map may have.
    """
    kind = geometry.get("type")
    if kind not in _KINDS:
        raise ValueError(f"the geometry's 'type' is {_described(kind)}, not {' or '.join(_KINDS[4:6])}")
    if kind not in ("Polygon", "MultiPolygon"):
        return {"type": kind, "coordinates": ()}
    parts = _typed(geometry.get("coordinates"), list, "'coordinates'")
    if kind == "Polygon":
        rings = [_ring(ring) for ring in parts]
        return {"type": kind, "coordinates": rings} if rings else None
    polygons = [[_ring(ring) for ring in _typed(part, list, "a polygon")] for part in parts]
    polygons = [rings for rings in polygons if rings]
    return {"type": kind, "coordinates": polygons} if polygons else None


def _crs_name(content: dict[str, Any]) -> str:
    crs = content.get("crs")
    if crs is None:
        return DEFAULT_CRS
    properties = _typed(_typed(crs, dict, "its 'crs'").get("properties"), dict, "the properties of its 'crs'")
    return str(_typed(properties.get("name"), str, "the name of its 'crs'"))


def _features(content: dict[str, Any]) -> Iterator[Any]:
    kind = content.get("type")
    if kind == "FeatureCollection":
        yield from _typed(content.get("features"), list, "'features'")
    elif kind == "Feature":
        yield content
    elif kind in _KINDS:
        yield {"type": "Feature", "geometry": content}
    else:
        raise ValueError(f"its 'type' is {_described(kind)}, not FeatureCollection")


def _checked(feature: Any, field: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the geometry and the attributes of a feature."""
    if _typed(feature, dict, "it").get("type") != "Feature":
        raise ValueError(f"its 'type' is {_described(feature.get('type'))}, not Feature")
    geometry, attributes = feature.get("geometry"), feature.get("properties")
    attributes = {} if attributes is None else _typed(attributes, dict, "'properties'")
    if isinstance(attributes.get(field), list | dict):
        raise ValueError(f"its '{field}' is {_described(attributes[field])}, not a text or number")
    return (None if geometry is None else checked_polygons(_typed(geometry, dict, "'geometry'"))), attributes


def _ring(ring: Any) -> list[tuple[float, float]]:
    corners = _typed(ring, list, "a ring")
    if len(corners) < 4:
        raise ValueError(f"a ring has {len(corners)} corners, at least 4 are needed, the last being the first")
    return [_corner(corner) for corner in corners]


def _corner(corner: Any) -> tuple[float, float]:
    if len(_typed(corner, list, "a corner")) < 2:
        raise ValueError("a corner has less than two coordinates")
    for part in corner[:2]:
        # NaN fails every comparison; a long integer needn't fit into a float.
        if type(part) not in (int, float) or not -_FARTHEST <= part <= _FARTHEST:
            raise ValueError(f"a coordinate is {_described(part)}, not a number that a map can have")
    return float(corner[0]), float(corner[1])


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, (list, tuple) if kind is list else kind):
        raise ValueError(f"{what} should be {_TYPES[kind]}, found {_described(value)}")
    return value


def _described(value: Any) -> str:
    if type(value) in (dict, list, tuple, type(None)):
        return _TYPES[type(value)]
    return shortened(repr(value), 60) if abs(value if isinstance(value, int) else 0) < 1e99 else "a huge number"
