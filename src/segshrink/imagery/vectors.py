"""Writing polygons with attributes as GeoPackage or GeoJSON, some thousands at a time."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.imagery.opening import silent
from segshrink.imagery.pixel_area import PixelGrid

LAYER = "classes"
# Digits of a degree: a millimeter.
_DIGITS = 8


@dataclass(frozen=True)
class Features:
    """Placed polygons (None for a table without), and a column of each attribute, NaN where unknown."""

    polygons: NDArray[Any] | None
    columns: dict[str, NDArray[Any]]


class GeoJsonWriter:
    """GeoJSON as in RFC 7946: longitude and latitude on WGS 84, cut at 180 degrees, exterior rings counter-clockwise.

    Polygons of a scene without a coordinate system are written in its pixels. A context manager that completes the
    file.
    """

    def __init__(self, path: Path, grid: PixelGrid) -> None:
        self._path, self._grid = path, grid
        self._separator = "\n"

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write('{"type": "FeatureCollection", "features": [')
        return self

    def add(self, features: Features) -> None:
        """Write some features.

        Raises:
            DataError: The coordinate system can't be turned into longitude and latitude.
        """
        import shapely

        degrees = self._grid.to_degrees(features.polygons)
        rounded = shapely.transform(degrees, lambda points: np.round(points, _DIGITS))
        rounded = shapely.orient_polygons(rounded if self._grid.crs is None else _cut(rounded))
        columns = {
            name: np.where(values != values, None, values).tolist()  # NaN differs from itself
            for name, values in features.columns.items()
        }
        for geometry, *values in zip(shapely.to_geojson(rounded).tolist(), *columns.values(), strict=True):
            attributes = json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False)
            self._file.write(
                f'{self._separator}{{"type": "Feature", "properties": {attributes}, "geometry": {geometry}}}'
            )
            self._separator = ",\n"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._file.write("\n]}\n")
            self._file.close()
        with suppress(OSError):  # of what couldn't be written already
            self._file.close()


class GeoPackageWriter:
    """A GeoPackage in the scene's coordinate system, with the classes' colors as the style that QGIS opens it in.

    A context manager that completes the file.
    """

    def __init__(self, path: Path, crs: str | None, classes: ClassMap) -> None:
        self._path, self._crs, self._classes = path, crs, classes

    def __enter__(self) -> Self:
        return self

    def add(self, features: Features) -> None:
        """Write some features.

        Raises:
            FileError: The disk is full.
        """
        self._append(features, layer=LAYER, crs=self._crs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        # The table and the columns that QGIS reads a layer's style from.
        style = {
            **dict.fromkeys(("f_table_catalog", "f_table_schema", "styleSLD", "description", "owner", "ui"), ""),
            "f_table_name": LAYER,
            "f_geometry_column": "geom",
            "styleName": LAYER,
            "styleQML": _style(self._classes),
            "useAsDefault": True,
            "update_time": np.datetime64("now", "ms"),
        }
        columns = {name: np.array([value], object if isinstance(value, str) else None) for name, value in style.items()}
        self._append(Features(None, columns), layer="layer_styles", layer_options={"FID": "id"})

    def _append(self, features: Features, **options: Any) -> None:
        import pyogrio
        import shapely

        polygons = features.polygons
        try:
            with silent(UserWarning):  # about scenes without a coordinate system
                pyogrio.raw.write(
                    self._path,
                    geometry=None if polygons is None else shapely.to_wkb(polygons),
                    geometry_type=None if polygons is None else "Polygon",
                    field_data=list(features.columns.values()),
                    fields=list(features.columns),
                    driver="GPKG",
                    append=self._path.exists(),
                    **options,
                )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError) as error:
            raise FileError(f"can't write {self._path.name} ({error}); free some space") from error


def _cut(polygons: NDArray[Any]) -> NDArray[Any]:
    """Cut polygons in degrees at the antimeridian, so that all longitudes lie within 180 degrees (RFC 7946, 3.1.9).

    GDAL's own cut loses polygons that reach round the earth.
    """
    import shapely

    west, _, east, _ = shapely.bounds(polygons).T
    parts = polygons.copy()
    for number in np.flatnonzero((west < -180) | (east > 180)):
        whole = shapely.make_valid(polygons[number])
        pieces = []
        for turn in range(math.floor((west[number] + 180) / 360), math.ceil((east[number] + 180) / 360)):
            strip = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
            moved = shapely.transform(
                shapely.intersection(whole, strip), lambda points, turn=turn: points - (360 * turn, 0)
            )
            pieces += [piece for piece in shapely.get_parts(moved) if piece.geom_type == "Polygon"]
        parts[number] = pieces[0] if len(pieces) == 1 else shapely.multipolygons(pieces)
    return parts


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
