"""Writing images and masks, each whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from segshrink.classes import ClassMap
from segshrink.errors import DataError, FileError
from segshrink.files import replacing
from segshrink.imagery.raster_files import gdal_settings, silent
from segshrink.version import __version__

_JPEG_QUALITY = 92
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "GTiff", ".tiff": "GTiff"}
# Numbers of bands and types that a format holds; GeoTIFF holds any.
_HOLDS = {"PNG": ((1, 2, 3, 4), ("uint8", "uint16")), "JPEG": ((1, 3), ("uint8",)), "BMP": ((1, 3), ("uint8",))}


def write_index_png(path: Path, index: NDArray[np.uint8], classes: ClassMap) -> None:
    """Write class indices as a palette PNG: numbers 0..n-1 and 255, shown in the classes' colors.

    Args:
        path: Where to; always PNG.
        index: (H, W) class indices, 255 where there is none.
        classes: Gives the colors.

    Raises:
        FileError: The file can't be written.
    """
    image = Image.fromarray(np.ascontiguousarray(index, dtype=np.uint8))
    image.putpalette(classes.palette())
    _write_picture(Path(path), image, "PNG")


def write_image(path: Path, image: NDArray[Any]) -> None:
    """Write raw pixel values.

    Args:
        path: Where to; the suffix says how: .png (1 to 4 bands of 8 or 16 bits), .jpg or .bmp (1 or 3 bands of 8 bits),
            .tif (any bands and numbers, without georeference).
        image: (H, W, bands) or (H, W).

    Raises:
        DataError: The format can't hold such bands or numbers.
        FileError: The file can't be written, or the suffix is unknown.
    """
    path = Path(path)
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        raise FileError(f"can't write {path}: unknown suffix '{path.suffix}'; use one of {', '.join(_FORMATS)}")
    image = image[:, :, np.newaxis] if image.ndim == 2 else image
    bands, dtype = image.shape[2], str(image.dtype)
    possible_bands, possible_dtypes = _HOLDS.get(name, ((bands,), (dtype,)))
    if bands not in possible_bands or dtype not in possible_dtypes:
        raise DataError(f"can't write {path}: {name} holds no {bands} bands of {dtype}; write a .tif")
    if name == "GTiff" or dtype == "uint16":
        _write_raster(path, image, name)
    else:
        picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if bands == 1 else image))
        _write_picture(path, picture, name)


def _write_picture(path: Path, picture: Image.Image, name: str) -> None:
    """Write with Pillow; PNG and JPEG say who wrote them, see ``segshrink.files.refuse_foreign``."""
    text = PngInfo()
    text.add_text("Software", f"segshrink {__version__}")
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": text},
        "JPEG": {"quality": _JPEG_QUALITY, "comment": f"written by segshrink {__version__}"},
    }
    with replacing(path) as temporary:
        picture.save(temporary, format=name, **options.get(name, {}))


def _write_raster(path: Path, image: NDArray[Any], driver: str) -> None:
    height, width, bands = image.shape
    size = {"height": height, "width": width, "count": bands, "dtype": image.dtype}
    # GDAL would mark a fourth band of bytes as transparency.
    options = {"compress": "deflate", "bigtiff": "if_safer", "alpha": "no"} if driver == "GTiff" else {}
    # Encoded in memory, because GDAL's own file writing reports a full disk late and on the terminal.
    with gdal_settings(GDAL_PAM_ENABLED=False), silent(NotGeoreferencedWarning), MemoryFile() as memory:
        try:
            with memory.open(driver=driver, **size, **options) as dataset:
                dataset.write(image.transpose(2, 0, 1))
        except RasterioError as error:
            raise FileError(f"can't write {path}: {error}; free some memory") from error
        with replacing(path) as temporary:
            temporary.write_bytes(memory.getbuffer())
