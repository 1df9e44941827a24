"""Reading whole images as (H, W, bands) arrays of raw pixel values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

from segshrink.errors import FileError
from segshrink.imagery.opening import open_pillow, open_raster, read_header

# Modes whose bands are pixel values; all others (palette, CMYK, ...) become RGB.
_PILLOW_BANDS = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
# Numbers that we work in; the rest is converted without loss of what images hold.
_DTYPES = {
    "uint8": "uint8",
    "uint16": "uint16",
    "int16": "int16",
    "float32": "float32",
    "int8": "int16",
    "int32": "float32",
    "uint32": "float32",
    "float16": "float32",
    "float64": "float32",
}


@dataclass(frozen=True)
class ImageInfo:
    """Size and kind of an image: what ``read_image`` would give."""

    height: int
    width: int
    bands: int
    dtype: str


def probe(path: Path) -> ImageInfo:
    """Read the header of an image only.

    Raises:
        FileError: The file is missing, unreadable, no image, or its header is damaged.
    """
    path = Path(path)
    header = read_header(path)
    if header.by_pillow:
        with open_pillow(path) as image:
            return ImageInfo(image.height, image.width, _PILLOW_BANDS.get(image.mode, 3), "uint8")
    with open_raster(path, header) as dataset:
        bands = 3 if has_palette(dataset) else dataset.count
        return ImageInfo(dataset.height, dataset.width, bands, working_dtype(path, dataset))


def read_image(path: Path) -> NDArray[Any]:
    """Read all bands of an image at full resolution.

    8-bit JPEG, PNG, BMP, GIF and WebP through Pillow; TIFF, JP2, VRT and 16-bit PNG through rasterio. Palette images
    are read through their palette, CMYK as RGB; alpha counts as a band; an EXIF orientation is not applied.

    Returns:
        (H, W, bands) uint8, uint16, int16 or float32 raw pixel values; no-data values are left as they are.

    Raises:
        FileError: The file is missing, unreadable, no image, damaged or truncated.
    """
    path = Path(path)
    header = read_header(path)
    if header.by_pillow:
        with open_pillow(path) as image:
            return pillow_array(image)
    with open_raster(path, header) as dataset:
        dtype = working_dtype(path, dataset)
        if has_palette(dataset):
            return through_palette(dataset)
        return raster_array(dataset, dtype)


def pillow_array(image: Image.Image) -> NDArray[np.uint8]:
    """Decode a Pillow image into (H, W, bands) uint8."""
    kept = image if image.mode in _PILLOW_BANDS else image.convert("RGB")
    array = np.array(kept)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    return array.reshape(image.height, image.width, -1)


def raster_array(dataset: Any, dtype: str) -> NDArray[Any]:
    """Read all bands of a rasterio dataset into (H, W, bands)."""
    array = np.empty((dataset.height, dataset.width, dataset.count), dtype=dtype)
    # GDAL writes into the interleaved array directly: no second copy of a large scene.
    dataset.read(out=array.transpose(2, 0, 1))
    return array


def has_palette(dataset: Any) -> bool:
    """Whether a rasterio dataset is one band of palette indices."""
    return bool(dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette and dataset.dtypes[0] == "uint8")


def through_palette(dataset: Any) -> NDArray[np.uint8]:
    """Read a palette dataset as (H, W, 3) colours."""
    colors: NDArray[np.uint8] = np.take(palette_table(dataset), dataset.read(1), axis=0)
    return colors


def palette_table(dataset: Any) -> NDArray[np.uint8]:
    """Return the (256, 3) colours of a palette dataset."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for number, color in dataset.colormap(1).items():
        table[number] = color[:3]
    return table


def working_dtype(path: Path | str, dataset: Any) -> str:
    """Return the numbers that all bands of a rasterio dataset are read as; FileError for complex ones."""
    found = str(np.result_type(*dataset.dtypes)) if "complex" not in "".join(dataset.dtypes) else dataset.dtypes[0]
    if found not in _DTYPES:
        raise FileError(f"{path} holds {found} numbers; convert it to uint8, uint16, int16 or float32")
    return _DTYPES[found]
