"""Opening image files by what they hold, not by what they are called."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from segshrink.errors import FileError

PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
_DRIVERS = {"TIFF": "GTiff", "JP2": "JP2OpenJPEG", "VRT": "VRT", "PNG": "PNG"}
# What Pillow raises on damaged files, besides OSError.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError)
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JP2",
    b"\xffO\xffQ": "JP2",
    b"<VRTDataset": "VRT",
}
# Python's list of warning filters is shared by all threads.
_FILTERS = threading.RLock()


class Header(NamedTuple):
    """What the first bytes tell: the format's name, and for PNG the bits of a sample and the colour type."""

    format: str
    bits: int = 8
    color_type: int = 0

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow reads the pixels without loss (it cuts 16-bit colour PNGs to 8 bits)."""
        return self.format in PILLOW_FORMATS and self.bits <= 8


def read_header(path: Path) -> Header:
    """Tell the format from the first bytes.

    Raises:
        FileError: The file is missing, unreadable, empty or no image.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the path of an image file")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check its permissions") from error
    if not start:
        raise FileError(f"{path} is empty; copy or download it again")
    for signature, name in _SIGNATURES.items():
        if start.lstrip().startswith(signature) if name == "VRT" else start.startswith(signature):
            if name == "PNG" and len(start) > 25:
                return Header(name, bits=start[24], color_type=start[25])
            return Header(name)
    kind = "text" if start.isascii() and b"\0" not in start else "data of an unknown format"
    raise FileError(
        f"{path} is not an image: it holds {kind} ({start[:16]!r}); replace it by a JPEG, PNG, BMP, GeoTIFF or JP2 file"
    )


@contextmanager
def silent(category: type[Warning]) -> Iterator[None]:
    """Keep a kind of warning from the user while the block runs; one thread at a time."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextmanager
def open_pillow(path: Path) -> Iterator[Image.Image]:
    """Open with Pillow; what goes wrong while the block reads pixels becomes a FileError as well.

    Raises:
        FileError: The file is damaged or truncated, or holds more pixels than Pillow takes.
    """
    try:
        # Aerial mosaics are large; Pillow still refuses twice its warning size.
        with silent(Image.DecompressionBombWarning):
            image = Image.open(path, formats=PILLOW_FORMATS)
        with image:
            yield image
    except FileError:
        raise
    except Image.DecompressionBombError as error:
        raise FileError(f"{path} is too large for its format ({error}); convert it to a GeoTIFF") from error
    except _DAMAGE as error:
        raise FileError(f"{path} is damaged or truncated ({error}); copy or download it again") from error


@contextmanager
def open_raster(path: Path, header: Header) -> Iterator[Any]:
    """Open with rasterio, silent about missing georeference; damage becomes a FileError.

    Raises:
        FileError: The file is damaged or truncated.
    """
    try:
        with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True, GDAL_PAM_ENABLED=False):
            with silent(NotGeoreferencedWarning):
                dataset = rasterio.open(path, driver=_DRIVERS[header.format])
            with dataset:
                yield dataset
    except FileError:
        raise
    except (RasterioError, OSError) as error:
        reason = error.__cause__ or error
        raise FileError(f"{path} is damaged or truncated ({reason}); copy or download it again") from error
