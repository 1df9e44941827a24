"""Doubted regions of a mask as polygons that somebody decides about in QGIS, and these decisions as pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError
from segshrink.file_search import is_file
from segshrink.files import replacing
from segshrink.imagery.georeference import read_georeference
from segshrink.imagery.pixel_area import PixelGrid
from segshrink.imagery.polygons import GeoJsonWriter, GeoPackageWriter, require_vector_extra
from segshrink.imagery.vector_masks import burned, on_grid, read_features

SUFFIXES = (".geojson", ".gpkg")
# Attributes: the class that is suggested, and what somebody decided.
CLASS, ACCEPTED = "class", "accepted"
_DECISIONS: dict[object, bool | None] = {
    **dict.fromkeys((True, 1, "true", "yes", "1", "t", "y"), True),
    **dict.fromkeys((False, 0, "false", "no", "0", "f", "n"), False),
    **dict.fromkeys((None, ""), None),
}
# Without a georeference y points down from the origin, as in QGIS.
_PIXELS = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def write_label_regions(
    path: Path, image: Path, classes: ClassMap, polygons: NDArray[Any], columns: Mapping[str, Any]
) -> None:
    """Write polygons of an image with the attribute ``accepted`` that nobody has filled in yet.

    Args:
        path: ``.geojson`` in longitude and latitude (in pixels, y up, where the image doesn't say where it lies), or
            ``.gpkg`` in the image's coordinate system.
        image: The image.
        classes: Names and colors.
        polygons: (n,) shapely polygons in pixels.
        columns: Other attributes by name, (n,) values each; ``class`` and ``class_index`` among them.

    Raises:
        FileError: The file can't be written.
        DataError: A GeoPackage is asked for and the image has no coordinate system.
        MissingExtraError: shapely or pyogrio is missing.
    """
    require_vector_extra(path)
    grid = PixelGrid(read_georeference(image))
    if grid.crs is None and path.suffix == ".gpkg":
        raise DataError(f"{image} doesn't say its coordinate reference system; write .geojson, which then is in pixels")
    attributes = {name: np.asarray(values) for name, values in columns.items()}
    attributes |= {f"area_{grid.unit}": grid.areas(polygons), ACCEPTED: np.full(len(polygons), None, object)}
    with replacing(path) as temporary:
        geojson = path.suffix == ".geojson"
        with GeoJsonWriter(temporary, grid) if geojson else GeoPackageWriter(temporary, grid.crs, classes) as writer:
            writer.add(grid.place(polygons), attributes)


def regions_of(folder: Path, name: str) -> Path | None:
    """Return the file of the scene of that name in a folder of regions; None where nothing of it is doubted."""
    return next((path for suffix in SUFFIXES if is_file(path := folder / f"{name}{suffix}")), None)


def read_label_regions(
    path: Path, image: Path, classes: ClassMap, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read what was decided about the regions of an image.

    Args:
        path: What ``write_label_regions`` wrote, with ``accepted`` filled in: true, false, or empty while undecided.
        image: The image.
        classes: Names that ``class`` may have.
        shape: (H, W) of the mask.

    Returns:
        Class indices (H, W) of accepted regions, 255 elsewhere, and where a region is undecided (H, W).

    Raises:
        FileError: The file is missing, unreadable or damaged.
        DataError: ``accepted`` is neither, an accepted region names no class, or nothing has these attributes.
        MissingExtraError: The format needs ``segshrink[vector]``.
    """
    place = read_georeference(image)
    transform, crs = place.placement
    coefficients = _PIXELS if transform is None else (transform.a, *tuple(transform)[1:6])
    place = replace(place, height=shape[0], width=shape[1], transform=coefficients, crs=crs, gcps=())
    suggested, decided = (read_features(path, field) for field in (CLASS, ACCEPTED))
    if any(suggested.geometries) and not {CLASS, ACCEPTED} <= {*suggested.fields}:
        raise DataError(
            f"{path}: its polygons lack the attribute '{CLASS}' or '{ACCEPTED}'; let segshrink labels write it"
        )
    decisions = [_decision(value, path) for value in decided.values]
    geometries = suggested.geometries if crs is None else on_grid(path, suggested, place)
    accepted, undecided = (
        [geometry if decision is wanted else None for geometry, decision in zip(geometries, decisions, strict=True)]
        for wanted in (True, None)
    )
    indices = [
        _index(name, classes, path) if decision else IGNORE_INDEX
        for name, decision in zip(suggested.values, decisions, strict=True)
    ]
    corrected = burned(accepted, indices, place, fill=IGNORE_INDEX)
    doubted = burned(undecided, [1] * len(undecided), place, fill=0).astype(np.bool_)
    return corrected, doubted & (corrected == IGNORE_INDEX)


def _decision(value: Any, path: Path) -> bool | None:
    key = value.strip().casefold() if isinstance(value, str) else value
    if key not in _DECISIONS:
        raise DataError(f"{path}: '{ACCEPTED}' is {value!r}; write true, false, or nothing")
    return _DECISIONS[key]


def _index(name: Any, classes: ClassMap, path: Path) -> int:
    if name not in classes.names:
        raise DataError(
            f"{path}: an accepted region's '{CLASS}' is {name!r}, which is none of {', '.join(classes.names)}"
        )
    return classes.names.index(name)
