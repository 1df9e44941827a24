"""Writing images, masks and overlays, each whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError, FileError
from segshrink.files import replacing
from segshrink.imagery.display import to_display
from segshrink.imagery.opening import silent
from segshrink.version import __version__

_JPEG_QUALITY = 92
_ROWS_AT_ONCE = 32  # of pictures that are mixed: small enough to stay in the processor's cache
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def write_index_png(path: Path, index: NDArray[np.uint8], classes: ClassMap) -> None:
    """Write class indices as a palette PNG: numbers 0..n-1 and 255, shown in the classes' colours.

    Args:
        path: Where to; always PNG.
        index: (H, W) class indices, 255 where there is none.
        classes: Gives the colours.

    Raises:
        FileError: The file can't be written.
    """
    image = Image.fromarray(np.ascontiguousarray(index, dtype=np.uint8))
    image.putpalette(classes.palette())
    with replacing(Path(path)) as temporary:
        image.save(temporary, **_signed("PNG"))


def write_overlay(
    path: Path, image: NDArray[Any], index: NDArray[np.uint8], classes: ClassMap, *, opacity: float = 0.5
) -> None:
    """Write an image with the classes' colours laid over it; ignored pixels show the bare image.

    Args:
        path: Where to; PNG, JPEG, BMP or TIFF by its suffix.
        image: (H, W, bands) of any numbers.
        index: (H, W) class indices.
        classes: Gives the colours.
        opacity: Share of the colour, 0 to 1.

    Raises:
        DataError: Image and index differ in size.
        FileError: The file can't be written, or the suffix is unknown.
    """
    if image.shape[:2] != index.shape:
        raise DataError(f"an overlay needs image and classes of one size, found {image.shape[:2]} and {index.shape}")
    shown = to_display(image)
    mixed = np.empty_like(shown)
    for start in range(0, len(shown), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        colors = classes.colorize(index[rows]) * np.float32(opacity)
        mixed[rows] = np.rint(shown[rows] * np.float32(1 - opacity) + colors)
    np.copyto(mixed, shown, where=(index == IGNORE_INDEX)[:, :, np.newaxis])
    write_image(path, mixed)


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
    bands, dtype = image.shape[2], image.dtype
    possible = {"PNG": (1, 2, 3, 4), "JPEG": (1, 3), "BMP": (1, 3)}.get(name, (bands,))
    numbers = {"PNG": ("uint8", "uint16"), "TIFF": (str(dtype),)}.get(name, ("uint8",))
    if bands not in possible or str(dtype) not in numbers:
        raise DataError(f"can't write {path}: {name} holds no {bands} bands of {dtype}; write a .tif")
    if name == "TIFF" or dtype == np.uint16:
        _write_raster(path, image, "GTiff" if name == "TIFF" else "PNG")
        return
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if bands == 1 else image))
    with replacing(path) as temporary:
        picture.save(temporary, **_signed(name))


def _signed(name: str) -> dict[str, Any]:
    """Return Pillow's options for a format; PNG and JPEG say who wrote them, see ``segshrink.files.refuse_foreign``."""
    if name == "PNG":
        text = PngInfo()
        text.add_text("Software", f"segshrink {__version__}")
        return {"format": name, "pnginfo": text}
    if name == "JPEG":
        return {"format": name, "quality": _JPEG_QUALITY, "comment": f"written by segshrink {__version__}"}
    return {"format": name}


def _write_raster(path: Path, image: NDArray[Any], driver: str) -> None:
    height, width, bands = image.shape
    # GDAL would mark a fourth band of bytes as transparency.
    options = {"compress": "deflate", "bigtiff": "if_safer", "alpha": "no"} if driver == "GTiff" else {}
    # Encoded in memory, because GDAL's own file writing reports a full disk late and on the terminal.
    with rasterio.Env(GDAL_PAM_ENABLED=False), silent(NotGeoreferencedWarning), MemoryFile() as memory:
        try:
            with memory.open(
                driver=driver, height=height, width=width, count=bands, dtype=image.dtype, **options
            ) as dataset:
                dataset.write(image.transpose(2, 0, 1))
        except RasterioError as error:
            raise FileError(f"can't write {path}: {error}; free some memory") from error
        with replacing(path) as temporary:
            temporary.write_bytes(memory.getbuffer())
