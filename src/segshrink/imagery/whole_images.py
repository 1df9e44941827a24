"""Whole images with what is valid in them, as training and evaluation take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from segshrink.imagery.bands import choose_bands
from segshrink.imagery.filling import fill_invalid
from segshrink.imagery.opening import open_raster, read_header
from segshrink.imagery.reading import has_palette, raster_array, read_image, working_dtype
from segshrink.imagery.validity import Validity
from segshrink.tiling import grid

# Side of the squares that are filled one after another: filling a large scene at once takes much memory.
_SQUARE = 1024


def read_valid_image(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read all bands of an image, and which pixels have a value.

    Pixels without a value (transparent, masked, no-data, NaN, infinite) are filled as in scenes. What Pillow reads
    (8-bit JPEG, PNG, ...) is valid throughout.

    Returns:
        Raw pixel values (H, W, bands), finite, as ``read_image`` gives them; (H, W), None when all are valid.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
    """
    path = Path(path)
    header = read_header(path)
    if header.by_pillow:
        return read_image(path), None
    with open_raster(path, header) as dataset:
        palette = has_palette(dataset)
        bands = choose_bands(dataset, None, count=3 if palette else dataset.count, name=str(path))
        dtype = "uint8" if palette else working_dtype(path, dataset)
        pixels = raster_array(dataset, dtype)
        place = RasterWindow(0, 0, dataset.width, dataset.height)
        valid = Validity.of(dataset, bands, dtype).of_window(dataset, pixels, place)
    if bands.palette is not None:
        pixels = np.take(bands.palette, pixels[:, :, 0], axis=0)
    if valid is not None:
        for window in grid(*valid.shape, tile=_SQUARE, overlap=0):
            if not valid[window.slices].all():
                fill_invalid(pixels[window.slices], valid[window.slices])
    return pixels, valid
