"""A class map as polygons: GeoPackage or GeoJSON out of a GeoTIFF, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from segshrink.imagery.opening import open_raster, read_header
from segshrink.imagery.pixel_area import PixelGrid
from segshrink.imagery.polygonize import Regions, Strip, find_regions
from segshrink.imagery.scene_sources import gdal_settings
from segshrink.imagery.simplification import simplified
from segshrink.imagery.vectors import Features, GeoJsonWriter, GeoPackageWriter, VectorWriter

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
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the connected regions of a class map (pixels of one class with a common edge) as polygons.

    The map is read in strips; a region that spans several is one polygon. Attributes: ``class`` (name),
    ``class_index``, ``area_m2`` (``area_px`` where the ground is unknown; measured before edges are simplified, see
    ``areas``) and, with ``confidence``, ``confidence`` (mean over the region's pixels, in the raster's scale).

    Args:
        class_map: GeoTIFF of class indices in its first band; 255 is no class.
        out: ``.gpkg``, in the map's coordinate system and with the classes' colours as style, or ``.geojson``, in
            longitude and latitude, cut at the antimeridian (RFC 7946).
        classes: Names and colours.
        confidence: Raster on the same grid, its first band is averaged.
        min_area: Smaller regions are left out; in the unit of the area. They leave holes.
        simplify: Tolerance in metres (pixels where the ground is unknown): corners that cut off less than about its
            square go. Neighbours keep common edges without gaps; all polygons are held in memory for that.
        strip_rows: Rows that are read at once; None: about two million pixels.
        progress: Called with the number of pixels read.

    Returns:
        How many polygons were written.

    Raises:
        FileError: A raster can't be read, the suffix is unknown, or the file can't be written.
        DataError: The map holds numbers that are no class, or the confidence lies on another grid.
        MissingExtraError: shapely or pyogrio is missing.
    """
    out = Path(out)
    if out.suffix.lower() not in _SUFFIXES:
        raise FileError(f"can't write {out}: unknown suffix '{out.suffix}'; use one of {', '.join(_SUFFIXES)}")
    require_vector_extra(out)
    with ExitStack() as stack:
        stack.enter_context(gdal_settings())
        index = stack.enter_context(open_raster(Path(class_map), read_header(Path(class_map)), own=True))
        sure = None
        if confidence is not None:
            sure = stack.enter_context(open_raster(confidence, read_header(confidence), own=True))
        if sure is not None and sure.shape != index.shape:
            raise DataError(
                f"{confidence} has {sure.height} × {sure.width} pixels and {class_map} {index.height} × {index.width}; "
                "give the confidence of the same scene"
            )
        grid = PixelGrid(Georeference.of(index))
        temporary = stack.enter_context(replacing(out))
        writer = _writer(temporary, grid, classes)
        stack.callback(writer.abandon)
        strips = _strips(index, sure, classes, strip_rows, progress)
        count = 0
        for regions, areas in _batches(find_regions(strips, index.height), grid, min_area, whole=simplify > 0):
            polygons = simplified(regions.polygons, grid, simplify)
            writer.add(Features(polygons, _attributes(regions, areas, classes, grid, sure)))
            count += len(regions)
        writer.close()
    return count


def require_vector_extra(out: Path) -> None:
    """Raise ``MissingExtraError`` where what writes polygons isn't installed."""
    try:
        import pyogrio  # noqa: F401
        import shapely  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(error, feature=f"writing {out.name}") or error from error


def _writer(path: Path, grid: PixelGrid, classes: ClassMap) -> VectorWriter:
    if path.suffix.lower() == ".geojson":
        return GeoJsonWriter(path, grid)
    return GeoPackageWriter(path, grid, classes)


def _strips(
    index: Any, sure: Any, classes: ClassMap, rows: int | None, progress: Callable[[int], None] | None
) -> Iterator[Strip]:
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
        values = None if sure is None else sure.read(1, window=window, masked=True)
        known = None if values is None else ~np.ma.getmaskarray(values)
        yield Strip(row, numbers.astype(np.uint8), None if values is None else values.data, known)
        if progress is not None:
            progress(numbers.size)


def _batches(
    found: Iterator[Regions], grid: PixelGrid, min_area: float, *, whole: bool
) -> Iterator[tuple[Regions, NDArray[np.float64]]]:
    """Yield regions that are large enough and their areas, many at once; ``whole``: all at once."""
    waiting: list[tuple[Regions, NDArray[np.float64]]] = []
    yielded = False
    for regions in found:
        areas = grid.areas(regions.polygons)
        large = areas >= min_area
        waiting.append((regions[large], areas[large]))
        if not whole and sum(len(part) for part, _ in waiting) >= _BATCH:
            yield _together(waiting)
            waiting, yielded = [], True
    if waiting or not yielded:
        yield _together(waiting)


def _together(parts: list[tuple[Regions, NDArray[np.float64]]]) -> tuple[Regions, NDArray[np.float64]]:
    return Regions.joined([regions for regions, _ in parts]), np.concatenate([areas for _, areas in parts])


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
