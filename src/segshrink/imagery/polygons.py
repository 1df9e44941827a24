"""A class map as polygons: GeoPackage or GeoJSON out of a GeoTIFF, whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.extras import needing
from segshrink.files import replacing
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.pixel_area import PixelGrid
from segshrink.imagery.polygonize import Regions, Strip, find_regions
from segshrink.imagery.qgis import polygon_style
from segshrink.imagery.raster_files import gdal_settings, open_raster, read_header, silent

# Pixels that are traced at once, and polygons that are written at once.
_STRIP = 1 << 21
_BATCH = 20_000
_SUFFIXES = (".gpkg", ".geojson")
_LAYER = "classes"
# Digits of a degree: a millimeter.
_DIGITS = 8

# Values of each attribute, NaN where unknown.
Columns = dict[str, NDArray[Any]]


def write_polygons(
    class_map: Path,
    out: Path,
    classes: ClassMap,
    *,
    confidence: Path | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    strip_rows: int | None = None,
) -> int:
    """Write the connected regions of a class map (pixels of one class with a common edge) as polygons.

    The map is read in strips; a region that spans several is one polygon. Attributes: ``class`` (name),
    ``class_index``, ``area_m2`` (``area_px`` where the ground is unknown; measured before edges are simplified, see
    ``PixelGrid.areas``) and, with ``confidence``, ``confidence`` (mean over the region's pixels, in the raster's
    scale).

    Args:
        class_map: GeoTIFF of class indices in its first band; 255 is no class.
        out: ``.gpkg``, in the map's coordinate system and with the classes' colors as style, or ``.geojson``, in
            longitude and latitude, cut at the antimeridian (RFC 7946).
        classes: Names and colors.
        confidence: Raster on the same grid, its first band is averaged.
        min_area: Smaller regions are left out; in the unit of the area. They leave holes.
        simplify: Tolerance in meters (pixels where the ground is unknown): corners that cut off less than about its
            square go. Neighbors keep common edges without gaps; all polygons are held in memory for that.
        strip_rows: Rows that are read at once; None: about two million pixels.

    Returns:
        How many polygons were written.

    Raises:
        FileError: A raster can't be read, the suffix is unknown, or the file can't be written.
        DataError: The map holds numbers that are no class, the confidence lies on another grid, or GeoJSON is asked for
            and the coordinate system can't be turned into longitude and latitude.
        MissingExtraError: shapely or pyogrio is missing.
    """
    out = Path(out)
    if out.suffix.lower() not in _SUFFIXES:
        raise FileError(f"can't write {out}: unknown suffix '{out.suffix}'; use one of {', '.join(_SUFFIXES)}")
    require_vector_extra(out)
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        index, *others = (
            stack.enter_context(open_raster(path, read_header(path), trusted=True))
            for path in (Path(class_map), confidence)
            if path is not None
        )
        sure = others[0] if others else None
        if sure is not None and sure.shape != index.shape:
            raise DataError(
                f"{confidence} has {sure.height} × {sure.width} pixels and {class_map} {index.height} × {index.width}; "
                "give the confidence of the same scene"
            )
        grid = PixelGrid(Georeference.of(index))
        temporary = stack.enter_context(replacing(out))
        writer: GeoJsonWriter | GeoPackageWriter = GeoPackageWriter(temporary, grid.crs, classes)
        if out.suffix.lower() == ".geojson":
            writer = GeoJsonWriter(temporary, grid)
        stack.enter_context(writer)
        count = 0
        regions_found = find_regions(_strips(index, sure, classes, strip_rows))
        for regions, areas in _batches(regions_found, grid, min_area, size=math.inf if simplify > 0 else _BATCH):
            polygons = grid.place(_simplified(regions.polygons, simplify / math.sqrt(grid.pixel_area)))
            writer.add(polygons, _attributes(regions, areas, classes, grid, sure))
            count += len(regions)
    return count


def require_vector_extra(out: Path) -> None:
    """Raise ``MissingExtraError`` where what writes polygons isn't installed."""
    with needing(f"writing {out.name}", "vector"):
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401


def _strips(index: Any, sure: Any, classes: ClassMap, rows: int | None) -> Iterator[Strip]:
    height, width = index.shape
    step = rows or max(1, min(height, _STRIP // width))
    for row in range(0, height, step):
        window = ((row, min(row + step, height)), (0, width))
        numbers = index.read(1, window=window)
        wrong = (numbers >= len(classes)) & (numbers != IGNORE_INDEX)
        if wrong.any():
            raise DataError(
                f"{index.name} holds the number {numbers[wrong][0]} in rows {row} to {window[0][1]}, but there are "
                f"{len(classes)} classes; give the class map's own classes"
            )
        confidence = None if sure is None else sure.read(1, window=window, masked=True)
        yield Strip(row, numbers.astype(np.uint8), confidence)


def _batches(
    parts: Iterator[Regions], grid: PixelGrid, min_area: float, *, size: float
) -> Iterator[tuple[Regions, NDArray[np.float64]]]:
    """Yield regions that are large enough and their areas, at least ``size`` at once but for the last; one or more."""
    waiting = Regions.joined([])
    areas = np.empty(0)
    for part in parts:
        part_areas = grid.areas(part.polygons)
        large = part_areas >= min_area
        waiting, areas = Regions.joined([waiting, part[large]]), np.append(areas, part_areas[large])
        if len(waiting) >= size:
            yield waiting, areas
            waiting, areas = Regions.joined([]), np.empty(0)
    yield waiting, areas


def _simplified(polygons: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """Remove corners whose triangle is smaller than about ``tolerance``² pixels; neighbors keep common edges.

    GEOS's simplification of coverages (Visvalingam and Whyatt's, edge by edge) leaves neither gaps nor overlaps where
    neighbors share every corner. It knows areas only, so it is done in pixels, where maps in degrees, feet or
    Mercator's meters come out like those in meters of the ground.
    """
    import shapely

    if tolerance <= 0 or not len(polygons):
        return polygons
    simpler: NDArray[Any] = shapely.coverage_simplify(with_all_corners(polygons), tolerance)
    return simpler


def with_all_corners(polygons: NDArray[Any]) -> NDArray[Any]:
    """Give polygons a corner at every pixel's corner that they run through, so that neighbors share all corners."""
    import shapely

    corners: NDArray[Any] = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)
    return corners


def _attributes(regions: Regions, areas: NDArray[np.float64], classes: ClassMap, grid: PixelGrid, sure: Any) -> Columns:
    names = np.array(classes.names, dtype=object)
    columns = {"class": names[regions.classes], "class_index": regions.classes, f"area_{grid.unit}": areas}
    if sure is not None:
        means = np.full(len(regions), np.nan)
        np.divide(regions.totals, regions.counts, out=means, where=regions.counts > 0)
        columns["confidence"] = means * sure.scales[0] + sure.offsets[0]
    return columns


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

    def add(self, polygons: NDArray[Any], columns: Columns) -> None:
        """Write some placed polygons and their attributes.

        Raises:
            DataError: The coordinate system can't be turned into longitude and latitude.
        """
        import shapely

        degrees = self._grid.to_degrees(polygons)
        rounded = shapely.transform(degrees, lambda points: np.round(points, _DIGITS))
        rounded = shapely.orient_polygons(rounded if self._grid.crs is None else _cut(rounded))
        plain = [[None if value != value else value for value in values.tolist()] for values in columns.values()]  # NaN
        for geometry, *values in zip(shapely.to_geojson(rounded).tolist(), *plain, strict=True):
            attributes = json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False)
            self._file.write(
                f'{self._separator}{{"type": "Feature", "properties": {attributes}, "geometry": {geometry}}}'
            )
            self._separator = ",\n"

    def __exit__(self, kind: object, error: object, trace: object) -> None:
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

    def add(self, polygons: NDArray[Any], columns: Columns) -> None:
        """Write some placed polygons and their attributes.

        Raises:
            FileError: The disk is full.
        """
        import shapely

        self._append(columns, geometry=shapely.to_wkb(polygons), geometry_type="Polygon", layer=_LAYER, crs=self._crs)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            return
        # The table and the columns that QGIS reads a layer's style from.
        style = {
            **dict.fromkeys(("f_table_catalog", "f_table_schema", "styleSLD", "description", "owner", "ui"), ""),
            "f_table_name": _LAYER,
            "f_geometry_column": "geom",
            "styleName": _LAYER,
            "styleQML": polygon_style(self._classes),
            "useAsDefault": True,
            "update_time": np.datetime64("now", "ms"),
        }
        columns = {name: np.array([value], object if isinstance(value, str) else None) for name, value in style.items()}
        self._append(columns, geometry=None, layer="layer_styles", layer_options={"FID": "id"})

    def _append(self, columns: Columns, **options: Any) -> None:
        import pyogrio

        try:
            with silent(UserWarning):  # about scenes without a coordinate system
                pyogrio.raw.write(
                    self._path,
                    field_data=list(columns.values()),
                    fields=list(columns),
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
