"""Reading masks as class indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError
from segshrink.imagery.bands import has_palette, palette_table, transparency
from segshrink.imagery.georeference import read_georeference
from segshrink.imagery.pictures import orientation_of, refuse_turned, upright
from segshrink.imagery.raster_files import Header, open_pillow, open_raster, read_header
from segshrink.imagery.validity import has_mask
from segshrink.imagery.vector_masks import VectorLabels, is_vector, read_vector_mask


def read_mask(
    path: Path, classes: ClassMap, *, image: Path | None = None, labels: VectorLabels | None = None
) -> NDArray[np.uint8]:
    """Read a mask as class indices.

    Args:
        path: An image of colors or numbers, or polygons (GeoJSON, GeoPackage, FlatGeobuf).
        classes: What they mean.
        image: What the mask belongs to: polygons are burned onto its grid, and a GeoTIFF that says where it lies must
            lie there. None where that isn't known; polygons need it.
        labels: How polygons become classes; None is ``VectorLabels()``.

    Palette files are read through the palette when classes are colors, as raw numbers when classes have values. The
    no-data value of a GeoTIFF of numbers is ignored unless a class has it. What a mask inside or beside the file or an
    alpha band masks out is ignored. An EXIF orientation is undone as that of images is.

    Returns:
        (H, W) class indices, 255 where ignored.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
        UndeclaredError: The mask holds something that is neither a class nor ignored; ``found`` counts it.
        DataError: The mask is of another kind than the classes need, or lies elsewhere than its image.
        MissingExtraError: The format of the polygons needs ``segshrink[vector]``.
    """
    path = Path(path)
    try:
        if is_vector(path):
            if image is None:
                raise DataError(f"{path} holds polygons, which need an image to be laid on; give a mask as an image")
            return read_vector_mask(path, image, classes, labels or VectorLabels())
        header = read_header(path)
        if header.by_pillow:
            return _read_small(path, header, classes)
        if image is not None:
            _refuse_other_place(path, image)
        return _read_raster(path, header, classes)
    except UndeclaredError as error:
        raise UndeclaredError(f"{path}: {error}", error.found) from error
    except DataError as error:
        if is_vector(path):  # its errors name it
            raise
        raise DataError(f"{path}: {error}") from error


def resized_mask(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Bring a mask to its image's size, each pixel from the nearest.

    Args:
        mask: (h, w) class indices.
        shape: (height, width) of the image.

    Returns:
        (height, width) class indices; None where the proportions differ by more than a pixel.
    """
    (rows, cols), (height, width) = mask.shape, shape
    if abs(rows * width / height - cols) > 1 and abs(cols * height / width - rows) > 1:
        return None
    row, col = ((np.arange(new) + 0.5) * old / new for new, old in ((height, rows), (width, cols)))
    nearest: NDArray[np.uint8] = mask[row.astype(np.intp)[:, np.newaxis], col.astype(np.intp)]
    return nearest


def _refuse_other_place(path: Path, image: Path) -> None:
    """Refuse a raster of its image's size that says it lies elsewhere; other sizes are told with both sizes."""
    mask, place = read_georeference(path), read_georeference(image)
    if (mask.height, mask.width) == (place.height, place.width) and not place.same_place(mask):
        raise DataError(
            f"the mask {path} lies elsewhere than its image {image}: its transform is {mask.transform}, the image's "
            f"{place.transform}; warp it onto the image's grid"
        )


def _read_small(path: Path, header: Header, classes: ClassMap) -> NDArray[np.uint8]:
    """Read a mask that Pillow decodes, upright: numbers or colors, and an alpha band that masks them."""
    with open_pillow(path) as image:
        orientation = orientation_of(image)
        as_numbers = image.mode == "1" or (image.mode == "P" and classes.values is not None)
        plain = image if as_numbers or image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
        array = upright(np.array(plain).reshape(image.height, image.width, -1), orientation)
    if as_numbers:
        return _encoded(classes, array[:, :, 0], None)
    masked = array[:, :, -1] == 0 if array.shape[2] in (2, 4) else None
    if array.shape[2] > 2:
        return _encoded(classes, array[:, :, :3], masked)
    numbers = array[:, :, 0]
    if classes.values is not None and header.format == "PNG" and header.bits in (2, 4):
        # Pillow stretches 2- and 4-bit gray to 0..255.
        numbers = numbers // np.uint8(255 // (2**header.bits - 1))
    return _encoded(classes, numbers, masked)


def _read_raster(path: Path, header: Header, classes: ClassMap) -> NDArray[np.uint8]:
    refuse_turned(path, header)
    with open_raster(path, header) as dataset:
        masked = _masked_out(dataset)
        alpha = transparency(dataset)
        bands = [number for number in range(1, dataset.count + 1) if number != alpha or dataset.count == 1]
        if classes.values is None and has_palette(dataset):
            return _encoded(classes, np.take(palette_table(dataset), dataset.read(1), axis=0), masked)
        if len(bands) > 1 or classes.values is None:
            return _encoded(classes, np.moveaxis(dataset.read(bands), 0, -1), masked)
        numbers, nodata = dataset.read(bands[0]), dataset.nodata
    if nodata is not None and nodata not in classes.values:
        empty = np.isnan(numbers) if np.isnan(nodata) else numbers == nodata
        masked = empty if masked is None else masked | empty
    return _encoded(classes, numbers, masked)


def _masked_out(dataset: Any) -> NDArray[np.bool_] | None:
    """Return which pixels the file itself masks out, by a mask or by a transparency band; None where it has neither."""
    alpha = transparency(dataset)
    if alpha is not None and dataset.count > 1:
        return np.asarray(dataset.read(alpha) == 0)
    if has_mask(dataset.mask_flag_enums[0]):
        return np.asarray(dataset.read_masks(1) == 0)
    return None


def _encoded(classes: ClassMap, pixels: NDArray[Any], masked: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Turn (H, W) numbers or (H, W, 3) colors into class indices; what is masked out is ignored, whatever it holds."""
    if masked is None or not masked.any():
        return classes.encode(pixels)
    if classes.values is None and pixels.shape[-1:] == (1,):
        pixels = pixels[:, :, 0]
    if classes.values is None and pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    pixels = np.where(
        masked if pixels.ndim == 2 else masked[:, :, np.newaxis],
        np.asarray(classes.colors[0] if classes.values is None else classes.values[0]).astype(pixels.dtype),
        pixels,
    )
    index = classes.encode(pixels)
    index[masked] = IGNORE_INDEX
    return index
