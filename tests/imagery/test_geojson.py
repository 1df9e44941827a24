"""GeoJSON of strangers: one sentence that names the file and the feature, or a mask; never anything else."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from segshrink.classes import ClassMap
from segshrink.errors import DataError, FileError, SegshrinkError
from segshrink.imagery import read_mask
from segshrink.imagery.geojson import checked_polygons, crs_named

Paint = Callable[..., Path]
CLASSES = ClassMap.build([("Ground", None, None), ("Road", None, None)])
SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
ROAD: dict[str, Any] = {
    "type": "Feature",
    "properties": {"class": "Road"},
    "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
}
NESTED = "[" * 100_000
# What replaces a part of a sound file.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**400, float("nan"), float("inf"), "", "x", "55.1", "\x1b[2J", "Polygon", [], [[]],
    [[["x"]]], {}, {"a": {}}, ["Road"], [1, 2], [[1, 2]], [[[1, 2]]], {"type": "Polygon"}, "ä" * 3000,
)  # fmt: skip


@pytest.fixture
def image(paint: Paint) -> Path:
    place = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, 0, 0, -0.1, 1)}
    return paint("image.tif", np.ones((10, 10, 3), dtype=np.uint8), **place)


def _with(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a sound road and, as feature 2, one with a part replaced (or removed, with ``...``)."""
    feature: Any = copy.deepcopy(ROAD)
    part = feature
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return {"type": "FeatureCollection", "features": [ROAD, feature]}


COORDINATES = ("geometry", "coordinates")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (_with(("type",), "Polygon"), "Feature"),
        (_with(("geometry",), "POLYGON ((0 0))"), "'POLYGON"),
        (_with(("geometry",), [1]), "a list"),
        (_with(("geometry", "type"), ...), "missing"),
        (_with(("geometry", "type"), "polygon"), "'polygon'"),
        (_with(COORDINATES, ...), "missing"),
        (_with(COORDINATES, "xx"), "'xx'"),
        (_with(COORDINATES, [["x"]]), "1 corners"),
        (_with(COORDINATES, [["x"] * 4]), "'x'"),
        (_with(COORDINATES, [[[str(part) for part in corner] for corner in SQUARE]]), "'0.0'"),
        (_with(COORDINATES, [SQUARE[:2]]), "2 corners"),
        (_with(COORDINATES, [[[1], *SQUARE]]), "two coordinates"),
        (_with(COORDINATES, [[[float("nan"), 0], *SQUARE]]), "nan"),
        (_with(COORDINATES, [[[float("inf"), 0], *SQUARE]]), "inf"),
        (_with(COORDINATES, [[[1e300, 0], *SQUARE]]), "1e+300"),
        (_with(COORDINATES, [[[10**400, 0], *SQUARE]]), "huge"),
        (_with(COORDINATES, [[[None, 0], *SQUARE]]), "null"),
        (_with(COORDINATES, [[[True, 0], *SQUARE]]), "True"),
        (_with(("properties",), "x"), "'x'"),
        (_with(("properties",), ["Road"]), "a list"),
        (_with(("properties", "class"), ["Road"]), "a list"),
        (_with(("properties", "class"), {"name": "Road"}), "an object"),
    ],
)
def test_a_malformed_feature_is_named(image: Path, tmp_path: Path, content: dict[str, Any], found: str) -> None:
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FileError, match=r"labels\.geojson is no GeoJSON \(feature 2: ") as caught:
        read_mask(path, CLASSES, image=image)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[1]", b"null", b"1", b'"x"', b'{"type": "FeatureCollection", "features": {}}', b"\xff\xfe{\0}\0",
        b"{\xe9}",
        b'{"type": "FeatureCollection", "features": null}', b'{"type": "FeatureCollection", "features": ["x", null]}',
        b'{"type": ["FeatureCollection"]}', b'{"type": "FeatureCollection", "features": [], "crs": "EPSG:4326"}',
        b'{"type": "FeatureCollection", "features": [], "crs": {"type": "link", "properties": {"href": "http://x"}}}',
        NESTED.encode(), b'{"type": "FeatureCollection", "features": ' + NESTED.encode(),
        b'{"type": "Polygon", "coordinates": [[[' + b"9" * 10_000 + b", 0]]]}",
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_geojson_is_named(image: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.geojson"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"labels\.geojson is no GeoJSON") as caught:
        read_mask(path, CLASSES, image=image)
    assert len(str(caught.value)) < 1000


def test_what_is_odd_but_sound_is_read(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.geojson"
    feature = {**ROAD, "id": None, "properties": {"class": "Road", "note": {"a": [1]}, "x": float("nan")}}
    feature["geometry"] = {"type": "Polygon", "coordinates": [[[*corner, None] for corner in SQUARE]], "extra": 1}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]})
    path.write_bytes(b"\xef\xbb\xbf" + text[:-1].encode() + b', "type": "FeatureCollection"}')
    assert (read_mask(path, CLASSES, image=image) == 1).any()


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/crs", "https://example.org/EPSG:4326", "file:///etc/passwd", "/etc/passwd", "+proj=longlat",
        "urn:ogc:def:crs:http://127.0.0.1:9", "EPSG:0", "EPSG:" + "9" * 5000, "EPSG:" + "9" * 16, "", "\0", "PROJCS[",
        "epsg.txt",        "http://opengis.net/def/crs/EPSG/0/x/../4326", "{\"type\": \"GeographicCRS\"}", "ESRI::http://127.0.0.1:9/",
    ],
)  # fmt: skip
def test_a_reference_system_is_never_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a\.geojson: its 'crs' "):
        crs_named(name, tmp_path / "a.geojson")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EPSG:32633", 32633),
        ("urn:ogc:def:crs:EPSG::3857", 3857),
        ("urn:ogc:def:crs:EPSG:6.9:4326", 4326),
        ("http://www.opengis.net/def/crs/EPSG/0/25832", 25832),
        ("epsg:4326", 4326),
    ],
)
def test_reference_systems_by_their_usual_names(tmp_path: Path, name: str, code: int) -> None:
    assert crs_named(name, tmp_path).to_epsg() == code


def test_polygons_come_back_flat() -> None:
    ring = [(0, 0, 5), (1, 0, 5), (1, 1, 5), (0, 0, 5)]
    flat = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]
    assert checked_polygons({"type": "Polygon", "coordinates": (ring,)}) == {"type": "Polygon", "coordinates": [flat]}
    parts = checked_polygons({"type": "MultiPolygon", "coordinates": [[], [ring]]})
    assert parts == {"type": "MultiPolygon", "coordinates": [[flat]]}
    assert checked_polygons({"type": "MultiPolygon", "coordinates": [[]]}) is None


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in items for place in _places(part, (*path, key)))]


def _mutated(content: Any, generator: random.Random) -> Any:
    content = copy.deepcopy(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        *path, last = generator.choice([place for place in _places(content) if place])
        part = content
        for key in path:
            part = part[key]
        action = generator.randrange(4)
        if action == 0:
            del part[last]
        elif action == 1:
            part[last] = [part[last]]
        else:
            part[last] = copy.deepcopy(generator.choice(ODD))
        if not content:
            break
    return content


def test_mutations_give_a_mask_or_a_sentence(image: Path, tmp_path: Path) -> None:
    generator = random.Random(20261128)
    crs = {"type": "name", "properties": {"name": "EPSG:4326"}}
    multi = {"type": "MultiPolygon", "coordinates": [[SQUARE, SQUARE], [SQUARE]]}
    sound = {"type": "FeatureCollection", "crs": crs, "features": [ROAD, {**ROAD, "geometry": multi}]}
    path = tmp_path / "labels.geojson"
    told = []
    for _ in range(400):
        path.write_bytes(json.dumps(_mutated(sound, generator)).encode())
        told.append(_sentence(path, image))
    for _ in range(200):  # bytes rather than parts
        content = bytearray(json.dumps(sound).encode())
        for _ in range(generator.randrange(1, 4)):
            start = generator.randrange(len(content))
            content[start : start + generator.randrange(3)] = generator.randbytes(generator.randrange(3))
        path.write_bytes(bytes(content))
        told.append(_sentence(path, image))
    sentences = [sentence for sentence in told if sentence is not None]
    assert 200 < len(sentences) < 580  # of 600
    assert all("labels.geojson" in sentence and len(sentence) <= 1000 for sentence in sentences)


def _sentence(path: Path, image: Path) -> str | None:
    """Return what is told of a mask, None where it is read; any other exception is a defect."""
    try:
        assert read_mask(path, CLASSES, image=image).shape == (10, 10)
    except SegshrinkError as error:
        return str(error)
    return None
