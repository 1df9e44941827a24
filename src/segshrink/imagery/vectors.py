"""Writing polygons with attributes as GeoPackage or GeoJSON, some thousands at a time."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.imagery.opening import silent
from segshrink.imagery.pixel_area import PixelGrid

LAYER = "classes"
# Digits of a degree: a millimetre.
_DIGITS = 8


@dataclass(frozen=True)
class Features:
    """Placed polygons, and a column of each attribute, NaN where unknown."""

    polygons: NDArray[Any]
    columns: dict[str, NDArray[Any]]


class VectorWriter(Protocol):
    """Takes features in parts."""

    def add(self, features: Features) -> None:
        """Write some features."""

    def close(self) -> None:
        """Complete the file."""

    def abandon(self) -> None:
        """Let go of the file, complete or not."""


class GeoJsonWriter:
    """GeoJSON as in RFC 7946: longitude and latitude on WGS 84, cut at 180 degrees, exterior rings counter-clockwise.

    Polygons of a scene that lies nowhere are written in its pixels.
    """

    def __init__(self, path: Path, grid: PixelGrid) -> None:
        self._grid = grid
        self._file = path.open("w", encoding="utf-8")
        self._file.write('{"type": "FeatureCollection", "features": [')
        self._separator = "\n"

    def add(self, features: Features) -> None:
        """Write some features."""
        import shapely

        degrees = self._grid.to_degrees(features.polygons)
        rounded = shapely.transform(degrees, lambda points: np.round(points, _DIGITS))
        rounded = shapely.orient_polygons(rounded if self._grid.crs is None else _cut(rounded))
        columns = {name: _plain(values) for name, values in features.columns.items()}
        for geometry, *values in zip(shapely.to_geojson(rounded).tolist(), *columns.values(), strict=True):
            attributes = json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False)
            self._file.write(
                f'{self._separator}{{"type": "Feature", "properties": {attributes}, "geometry": {geometry}}}'
            )
            self._separator = ",\n"

    def close(self) -> None:
        """Complete the file."""
        self._file.write("\n]}\n")
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file, complete or not."""
        with suppress(OSError):
            self._file.close()


class GeoPackageWriter:
    """A GeoPackage in the scene's coordinate system, with the classes' colours as the style that QGIS opens it in."""

    def __init__(self, path: Path, grid: PixelGrid, classes: ClassMap) -> None:
        self._path = path
        self._crs = grid.crs
        self._classes = classes
        self._begun = False

    def add(self, features: Features) -> None:
        """Write some features."""
        import pyogrio
        import shapely

        try:
            with silent(UserWarning):  # about scenes without a coordinate system
                pyogrio.raw.write(
                    self._path,
                    geometry=shapely.to_wkb(features.polygons),
                    field_data=list(features.columns.values()),
                    fields=list(features.columns),
                    layer=LAYER,
                    driver="GPKG",
                    geometry_type="Polygon",
                    crs=self._crs,
                    append=self._begun,
                )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError) as error:
            raise FileError(f"can't write {self._path.name} ({error}); free some space") from error
        self._begun = True

    def close(self) -> None:
        """Complete the file."""
        try:
            with closing(sqlite3.connect(self._path)) as database, database:
                _add_style(database, _style(self._classes))
        except sqlite3.Error as error:
            raise FileError(f"can't write {self._path.name} ({error}); free some space") from error

    def abandon(self) -> None:
        """Nothing is open between parts."""


def _cut(polygons: NDArray[Any]) -> NDArray[Any]:
    """Cut polygons in degrees at the antimeridian, so that all longitudes lie within 180 degrees (RFC 7946, 3.1.9)."""
    import shapely

    west, _, east, _ = shapely.bounds(polygons).T
    parts = polygons.copy()
    for number in np.flatnonzero((west < -180) | (east > 180)):
        whole = shapely.make_valid(polygons[number])
        pieces = []
        for turn in range(math.floor((west[number] + 180) / 360), math.ceil((east[number] + 180) / 360)):
            strip = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
            within = shapely.get_parts(shapely.intersection(whole, strip))
            pieces += [
                shapely.transform(piece, lambda points, turn=turn: points - (360 * turn, 0))
                for piece in within
                if piece.geom_type == "Polygon"
            ]
        parts[number] = pieces[0] if len(pieces) == 1 else shapely.multipolygons(pieces)
    return parts


def _plain(values: NDArray[Any]) -> list[Any]:
    unknown = values.dtype.kind == "f"
    return [None if unknown and np.isnan(value) else value for value in values.tolist()]


def _add_style(database: sqlite3.Connection, style: str) -> None:
    """Store a style where QGIS and GDAL look for it."""
    (geometry,) = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
    database.execute(
        "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT, "
        "f_table_schema TEXT, f_table_name TEXT, f_geometry_column TEXT, styleName TEXT, styleQML TEXT, styleSLD TEXT, "
        "useAsDefault BOOLEAN, description TEXT, owner TEXT, ui TEXT, update_time DATETIME)"
    )
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles')"
    )
    database.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, useAsDefault, description, update_time) VALUES ('', '', ?, ?, 'classes', ?, 1, '', "
        "strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        (LAYER, geometry, style),
    )


def _style(classes: ClassMap) -> str:
    """Say in QGIS's words: one fill for each class, no outline."""
    categories = "".join(
        f'<category symbol="{number}" value="{number}" label={quoteattr(name)} type="long" render="true"/>'
        for number, name in enumerate(classes.names)
    )
    symbols = "".join(
        f'<symbol type="fill" name="{number}" alpha="1" clip_to_extent="1" force_rhr="0">'
        '<layer class="SimpleFill" enabled="1" locked="0" pass="0"><Option type="Map">'
        f'<Option type="QString" name="color" value="{red},{green},{blue},255"/>'
        '<Option type="QString" name="outline_style" value="no"/>'
        '<Option type="QString" name="style" value="solid"/></Option></layer></symbol>'
        for number, (red, green, blue) in enumerate(classes.colors)
    )
    return (
        '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM"><qgis version="3.28" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="class_index" symbollevels="0" enableorderby="0" forceraster="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )
