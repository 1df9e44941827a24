"""A class map as polygons: GeoPackage or GeoJSON out of a GeoTIFF, whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.extras import missing_extra
from segshrink.files import replacing
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.opening import gdal_settings, open_raster, read_header
from segshrink.imagery.pixel_area import PixelGrid
from segshrink.imagery.polygonize import Regions, Strip, find_regions, with_all_corners
from segshrink.imagery.vectors import Features, GeoJsonWriter, GeoPackageWriter

# Pixels that are traced at once, and polygons that are written at once.
_STRIP = 1 << 21
_BATCH = 20_000
_SUFFIXES = (".gpkg", ".geojson")


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
        index, sure = (
            None if path is None else stack.enter_context(open_raster(path, read_header(path), trusted=True))
            for path in (Path(class_map), confidence)
        )
        if sure is not None and sure.shape != index.shape:
            raise DataError(
                f"{confidence} has {sure.height} × {sure.width} pixels and {class_map} {index.height} × {index.width}; "
                "give the confidence of the same scene"
            )
        grid = PixelGrid(Georeference.of(index))
        temporary = stack.enter_context(replacing(out))
        as_json = out.suffix.lower() == ".geojson"
        writer = stack.enter_context(
            GeoJsonWriter(temporary, grid) if as_json else GeoPackageWriter(temporary, grid.crs, classes)
        )
        count = 0
        regions_found = find_regions(_strips(index, sure, classes, strip_rows))
        for regions, areas in _batches(regions_found, grid, min_area, size=math.inf if simplify > 0 else _BATCH):
            polygons = grid.place(_simplified(regions.polygons, simplify / math.sqrt(grid.pixel_area)))
            writer.add(Features(polygons, _attributes(regions, areas, classes, grid, sure)))
            count += len(regions)
    return count


def require_vector_extra(out: Path) -> None:
    """Raise ``MissingExtraError`` where what writes polygons isn't installed."""
    try:
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(error, feature=f"writing {out.name}") or error from error


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


def _attributes(
    regions: Regions, areas: NDArray[np.float64], classes: ClassMap, grid: PixelGrid, sure: Any
) -> dict[str, NDArray[Any]]:
    names = np.array(classes.names, dtype=object)
    columns = {"class": names[regions.classes], "class_index": regions.classes, f"area_{grid.unit}": areas}
    if sure is not None:
        means = np.full(len(regions), np.nan)
        np.divide(regions.totals, regions.counts, out=means, where=regions.counts > 0)
        columns["confidence"] = means * sure.scales[0] + sure.offsets[0]
    return columns
