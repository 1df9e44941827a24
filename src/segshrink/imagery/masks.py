"""Reading masks as class indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError
from segshrink.imagery.opening import Header, open_pillow, open_raster, read_header
from segshrink.imagery.reading import has_palette, pillow_array, through_palette
from segshrink.imagery.scene_sources import read_georeference
from segshrink.imagery.vector_masks import VectorLabels, is_vector, read_vector_mask


def read_mask(
    path: Path, classes: ClassMap, *, image: Path | None = None, labels: VectorLabels | None = None
) -> NDArray[np.uint8]:
    """Read a mask as class indices.

    Args:
        path: An image of colours or numbers, or polygons (GeoJSON, GeoPackage, FlatGeobuf).
        classes: What they mean.
        image: What the mask belongs to: polygons are burned onto its grid, and a GeoTIFF that says where it lies must
            lie there. None where that isn't known; polygons need it.
        labels: How polygons become classes; None is ``VectorLabels()``.

    Palette files are read through the palette when classes are colours, as raw numbers when classes have values. The
    no-data value of a GeoTIFF of numbers is ignored unless a class has it.

    Returns:
        (H, W) class indices, 255 where ignored.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
        UndeclaredError: The mask holds something that is neither a class nor ignored; ``found`` counts it.
        DataError: The mask is of another kind than the classes need, or lies elsewhere than its image.
        MissingExtraError: The format of the polygons needs ``segshrink[vector]``.
    """
    path = Path(path)
    if is_vector(path):
        if image is None:
            raise DataError(f"{path} holds polygons, which need an image to be laid on; give a mask as an image")
        return _read_polygons(path, image, classes, labels or VectorLabels())
    header = read_header(path)
    if image is not None and not header.by_pillow:
        _refuse_other_place(path, image)
    try:
        if header.by_pillow:
            return classes.encode(_read_small(path, header, classes))
        return _read_raster(path, header, classes)
    except UndeclaredError as error:
        raise UndeclaredError(f"{path}: {error}", error.found) from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _read_polygons(path: Path, image: Path, classes: ClassMap, labels: VectorLabels) -> NDArray[np.uint8]:
    try:
        return read_vector_mask(path, image, classes, labels)
    except UndeclaredError as error:
        raise UndeclaredError(f"{path}: {error}", error.found) from error


def _refuse_other_place(path: Path, image: Path) -> None:
    """Refuse a raster of its image's size that says it lies elsewhere; other sizes are told with both sizes."""
    mask, place = read_georeference(path), read_georeference(image)
    if (mask.height, mask.width) == (place.height, place.width) and not place.same_place(mask):
        raise DataError(
            f"the mask {path} lies elsewhere than its image {image}: its transform is {mask.transform}, the image's "
            f"{place.transform}; warp it onto the image's grid"
        )


def _read_small(path: Path, header: Header, classes: ClassMap) -> NDArray[Any]:
    """Read a mask that Pillow decodes: (H, W) numbers or (H, W, 3 or 4) colours."""
    with open_pillow(path) as image:
        if image.mode == "1" or (image.mode == "P" and classes.values is not None):
            return np.array(image)
        array = pillow_array(image)
        if array.shape[2] <= 2:
            array = array[:, :, 0]
            if classes.values is not None and header.format == "PNG" and header.bits in (2, 4):
                # Pillow stretches 2- and 4-bit grey to 0..255.
                array = array // np.uint8(255 // (2**header.bits - 1))
        return array


def _read_raster(path: Path, header: Header, classes: ClassMap) -> NDArray[np.uint8]:
    with open_raster(path, header) as dataset:
        if classes.values is None:
            if has_palette(dataset):
                return classes.encode(through_palette(dataset))
            return classes.encode(_interleaved(dataset))
        if dataset.count != 1:
            return classes.encode(_interleaved(dataset))
        numbers, nodata = dataset.read(1), dataset.nodata
    if nodata is None or nodata in classes.values:
        return classes.encode(numbers)
    empty = np.isnan(numbers) if np.isnan(nodata) else numbers == nodata
    numbers[empty] = classes.values[0]
    index = classes.encode(numbers)
    index[empty] = IGNORE_INDEX
    return index


def _interleaved(dataset: Any) -> NDArray[Any]:
    return np.moveaxis(dataset.read(), 0, -1)
