"""Opening image files by what they hold, with one driver each: a file never decides what else is read or asked."""

from __future__ import annotations

import re
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
from segshrink.file_search import is_file
from segshrink.imagery.limits import (
    IMAGE_RATIO,
    UNLIMITED,
    decoded_size,
    refuse_beyond_memory,
    refuse_bomb,
    refuse_claims,
    size_of,
)
from segshrink.imagery.vrt import vrt_sources

PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# GDAL's driver that reads a format. None of them follows a reference to another place.
_DRIVERS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "BMP": "BMP",
    "GIF": "GIF",
    "WEBP": "WEBP",
    "TIFF": "GTiff",
    "JP2": "JP2OpenJPEG",
    "HFA": "HFA",
    "ENVI": "ENVI",
    "EHdr": "EHdr",
    "VRT": "VRT",
}
# Formats without a signature: bare numbers, which a header file (.hdr) beside them describes.
_RAW_FORMATS = {".dat": "ENVI", ".bil": "EHdr", ".img": "ENVI"}
# What a URL that the user names may be.
REMOTE_DRIVERS = [_DRIVERS[name] for name in ("TIFF", "JP2", "JPEG", "PNG", "WEBP", "HFA")]
# What GDAL opens beside a file as it is asked for overviews and masks, with any driver.
_COMPANIONS = (".ovr", ".OVR", ".msk", ".MSK")
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
    b"EHFA_HEADER_TAG": "HFA",
    b"<VRTDataset": "VRT",
}
_TIFF_SIGNATURES = tuple(signature for signature, name in _SIGNATURES.items() if name == "TIFF")
_XML_HEAD = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*")
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
    start = _first_bytes(path)
    for signature, name in _SIGNATURES.items():
        if (_XML_HEAD.sub(b"", start, count=1) if name == "VRT" else start).startswith(signature):
            if name == "VRT" and path.suffix.lower() != ".vrt":
                raise FileError(f"{path} is a VRT, which names other files, under another name; call it .vrt")
            if name == "PNG" and len(start) > 25:
                return Header(name, bits=start[24], color_type=start[25])
            return Header(name)
    kind = "text" if start.isascii() and b"\0" not in start else "data of an unknown format"
    raise FileError(
        f"{path} is not an image: it holds {kind} ({start[:16]!r}); replace it by a JPEG, PNG, BMP, GeoTIFF or JP2 file"
    )


def scene_header(path: Path) -> Header:
    """Tell the format of a scene, which may also be one without signature: ENVI's, ESRI's (.dat, .bil, .img).

    Raises:
        FileError: As in ``read_header``; or such a file and its header file lie in two folders.
    """
    described = [path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr")]
    name = _RAW_FORMATS.get(path.suffix.lower())
    header = next((file for file in described if is_file(file)), None)
    if name is None or header is None or _first_bytes(path).startswith(b"EHFA"):
        return read_header(path)
    if path.resolve().parent != header.resolve().parent:
        raise FileError(f"{path} and its header {header} are links into two folders; put them into one")
    return Header(name)


def open_safely(path: Path, header: Header, *, ratio: int) -> Any:
    """Open with the drivers of a format alone, and only if the file refers to none elsewhere and claims what it can.

    Args:
        path: A local file.
        header: Its format.
        ratio: Times that the pixels may be larger than the file, where they are many.

    Raises:
        FileError: The file refers to others, or claims too much.
        RasterioError: It is damaged.
    """
    sources: list[Path] = []
    if header.format == "VRT":
        sources = vrt_sources(path)
        for source in sources:
            inner = read_header(source)
            if inner.format != "VRT":
                open_safely(source, inner, ratio=ratio).close()
    _refuse_companions(path)
    # An absolute path is never taken for GDAL's own syntax.
    with silent(NotGeoreferencedWarning):
        dataset = rasterio.open(path.absolute(), driver=_DRIVERS[header.format])
    try:
        refuse_references(path, dataset)
        refuse_claims(path, dataset, size_of([path, *sources]), ratio=ratio)
    except BaseException:
        dataset.close()
        raise
    return dataset


def refuse_references(name: object, dataset: Any) -> None:
    """Raise FileError if an open rasterio dataset names another file, which GDAL would open with any driver."""
    if "OVERVIEW_FILE" in {key.upper() for key in dataset.tags(ns="OVERVIEWS")}:
        raise FileError(f"{name} names another file for its overviews, which isn't read; copy it (gdal_translate)")


def _refuse_companions(path: Path) -> None:
    """Refuse overviews and masks beside a file that are no TIFF; each may have its own."""
    waiting = [path]
    while waiting:
        file = waiting.pop()
        for companion in (file.with_name(f"{file.name}{suffix}") for suffix in _COMPANIONS):
            if companion.exists():
                if not _first_bytes(companion).startswith(_TIFF_SIGNATURES):
                    raise FileError(f"{companion}, beside {path.name}, is no TIFF; remove it, or make it again")
                waiting.append(companion)


def _first_bytes(path: Path) -> bytes:
    """Read the first bytes of a file; FileError if it is none, empty or unreadable."""
    try:
        if path.is_dir():
            raise FileError(f"{path} is a folder; give the path of an image file")
        if path.exists() and not path.is_file():
            raise FileError(f"{path} is a device or pipe; give the path of an image file")
        with path.open("rb") as stream:
            start = stream.read(1024)
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist; check the path") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check its permissions") from error
    except ValueError as error:  # a zero byte in the name
        raise FileError(f"{path} can't be a file's name ({error}); check the path") from error
    if not start:
        raise FileError(f"{path} is empty; copy or download it again")
    return start


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
            decoded = image.width * image.height * max(3, len(image.getbands()))
            refuse_bomb(path, decoded, path.stat().st_size)
            refuse_beyond_memory(path, decoded)
            yield image
    except FileError:
        raise
    except Image.DecompressionBombError as error:
        raise FileError(f"{path} is too large for its format ({error}); convert it to a GeoTIFF") from error
    except _DAMAGE as error:
        raise FileError(f"{path} is damaged or truncated ({error}); copy or download it again") from error


@contextmanager
def open_raster(path: Path, header: Header, *, own: bool = False) -> Iterator[Any]:
    """Open with rasterio to read the whole; damage becomes a FileError.

    Args:
        path: A local file.
        header: Its format.
        own: Whether this program wrote it and reads it in windows: then it may be large and blank.

    Raises:
        FileError: The file is damaged or truncated, refers to files elsewhere, or claims more than can be.
    """
    try:
        ratio = UNLIMITED if own else IMAGE_RATIO
        with local_settings(GDAL_PAM_ENABLED=False), open_safely(path, header, ratio=ratio) as dataset:
            if not own:
                refuse_beyond_memory(path, decoded_size(dataset))
            yield dataset
    except FileError:
        raise
    except (RasterioError, OSError, MemoryError) as error:
        reason = error.__cause__ or error
        raise FileError(f"{path} is damaged or truncated ({reason}); copy or download it again") from error
    except UnicodeEncodeError as error:
        raise FileError(f"{path} has a name that isn't UTF-8, which GDAL can't open; rename it") from error


def local_settings(**options: Any) -> Any:
    """Return GDAL's settings for files of strangers: damage is an error, and folders aren't listed for each file."""
    return rasterio.Env(
        GDAL_ERROR_ON_LIBJPEG_WARNING=True,
        GDAL_DISABLE_READDIR_ON_OPEN=True,
        **options,
    )
