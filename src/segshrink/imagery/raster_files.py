"""Opening image files by what they hold, with one driver each: a file never decides what else is read or asked.

What a file claims to hold is compared with its size and with this machine's memory before anything is decoded.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from segshrink.errors import FileError
from segshrink.file_search import is_file
from segshrink.formatting import scaled
from segshrink.imagery.hfa import refuse_names_elsewhere
from segshrink.imagery.vrt import vrt_sources
from segshrink.machine import available_memory

Source = str | Path

PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# GDAL's driver of a format, where it is called otherwise. None of them follows a reference to another place.
_DRIVERS = {"TIFF": "GTiff", "JP2": "JP2OpenJPEG"}
# Formats without a signature: bare numbers, which a header file (.hdr) beside them describes.
_RAW_FORMATS = {".dat": "ENVI", ".bil": "EHdr", ".img": "ENVI"}
# What a URL that the user names may be, and its schemes with GDAL's file systems behind them.
_REMOTE_DRIVERS = ["GTiff", "JP2OpenJPEG", "JPEG", "PNG", "WEBP"]
_REMOTE = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
# What GDAL opens beside a file as it is asked for overviews and masks, with any driver.
_MASKS = (".msk", ".MSK")
_COMPANIONS = (".ovr", ".OVR", *_MASKS)
# How GDAL's notes beside a file begin to say which value means no data.
_NODATA = b"<NoDataValue"
# Imagine's, where GDAL looks for overviews as well.
_IMAGINE = (".aux", ".AUX")
# What Pillow raises on damaged files, besides OSError.
_PILLOW_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError)
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "BMP": (b"BM",),
    "GIF": (b"GIF8",),
    "WEBP": (b"RIFF",),
    "TIFF": _TIFF_SIGNATURES,
    "JP2": (b"\0\0\0\x0cjP  ", b"\xffO\xffQ"),
    "HFA": (b"EHFA_HEADER_TAG",),
}
_VRT = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<VRTDataset")
# Python's list of warning filters is shared by all threads.
_FILTERS = threading.RLock()
# What GDAL keeps of decoded blocks, in bytes, whatever the size of a scene: a row of tiles of 512 rows, 60,000 columns
# and three bytes. GDAL reads this once, with the first block of the process.
_CACHE_BYTES = 96 << 20
# No measuring device has so many bands; each costs time when a file is opened.
_MOST_BANDS = 4096
# Decoded sizes in bytes below which no file is suspected.
_SMALL_BLOCK, _SMALL_IMAGE = 128 << 20, 512 << 20
# Bytes for which it isn't asked how much memory is free, since that takes as long as reading them.
_TINY = 1 << 19
# Times that a block or a whole image may be larger than its file. Blank images reach 1000 in a PNG or deflated TIFF;
# scenes that are read window by window may hold little but gaps.
_BLOCK_RATIO, _IMAGE_RATIO, _SCENE_RATIO, _UNLIMITED = 100, 500, 5000, 10**9
# Arrays of an image's size that decoding holds at once: the image, and what is made of it.
_COPIES = 2


class Header(NamedTuple):
    """Content of the first bytes: the format's name, and for PNG the bits of a sample and the color type."""

    format: str
    bits: int = 8
    color_type: int = 0

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow reads the pixels without loss (it cuts 16-bit color PNGs to 8 bits)."""
        return self.format in PILLOW_FORMATS and self.bits <= 8


def read_header(path: Path) -> Header:
    """Tell the format from the first bytes.

    Raises:
        FileError: The file is missing, unreadable, empty or no image.
    """
    path = Path(path)
    start = _first_bytes(path)
    if _VRT.match(start):
        if path.suffix.lower() != ".vrt":
            raise FileError(f"{path} is a VRT, which names other files, under another name; call it .vrt")
        return Header("VRT")
    name = next((name for name, signatures in _SIGNATURES.items() if start.startswith(signatures)), None)
    if name is None:
        kind = "text" if start.isascii() and b"\0" not in start else "data of an unknown format"
        raise FileError(
            f"{path} is not an image: it holds {kind} ({start[:16]!r}); replace it by a JPEG, PNG, BMP, GeoTIFF or JP2 "
            "file"
        )
    return Header(name, *start[24:26]) if name == "PNG" and len(start) > 25 else Header(name)


def masks_beside(path: Path) -> list[Path]:
    """Return the files beside an image that say which of its pixels have no value: masks, and GDAL's notes."""
    masks = [Path(f"{path}{suffix}") for suffix in _MASKS if os.path.exists(f"{path}{suffix}")]  # noqa: PTH110  # quick
    notes = Path(f"{path}.aux.xml")
    telling = is_file(notes) and os.access(notes, os.R_OK) and _NODATA in notes.read_bytes()
    return [*masks, notes] if telling else masks


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


def is_remote(source: Source) -> bool:
    """Whether a source is a URL (http, https, s3, gs, az)."""
    return isinstance(source, str) and _scheme(source) in _REMOTE


def gdal_settings(**options: Any) -> Any:
    """Return GDAL's settings: damage is an error, folders aren't listed, a bounded cache, retries over the network."""
    return rasterio.Env(
        GDAL_ERROR_ON_LIBJPEG_WARNING=True,
        GDAL_DISABLE_READDIR_ON_OPEN=True,
        GDAL_CACHEMAX=_CACHE_BYTES,
        GDAL_HTTP_MAX_RETRY=3,
        GDAL_HTTP_RETRY_DELAY=1,
        GDAL_HTTP_TIMEOUT=60,
        GDAL_HTTP_CONNECTTIMEOUT=20,
        **options,
    )


def open_source(source: Source) -> Any:
    """Open a source as a rasterio dataset of its own, to be read in windows, inside ``gdal_settings``.

    Raises:
        FileError: It is missing, empty, no image, damaged, unreachable, refers to files elsewhere, claims more than can
            be, or holds several images and none itself.
    """
    if is_remote(source):
        with _damage_as_file_errors(source, "can't be read as an image", "check the address, and the network"):
            return _open_remote(str(source))
    if isinstance(source, str) and "://" in source:
        raise FileError(f"{source} can't be opened; give a local path or a URL of {', '.join(_REMOTE)}")
    path = Path(source)
    header = scene_header(path)
    remedy = "replace it by a GeoTIFF, JPEG2000, JPEG, PNG or VRT file, or copy it again"
    with _damage_as_file_errors(path, "can't be read as an image", remedy):
        return _open_local(path, header, ratio=_IMAGE_RATIO if header.format in PILLOW_FORMATS else _SCENE_RATIO)


@contextmanager
def open_raster(path: Path, header: Header, *, trusted: bool = False) -> Iterator[Any]:
    """Open with rasterio to read the whole; damage becomes a FileError.

    Args:
        path: A local file.
        header: Its format.
        trusted: Whether this program wrote it and reads it in windows: then it may be large and blank.

    Raises:
        FileError: The file is damaged or truncated, refers to files elsewhere, or claims more than can be.
    """
    ratio = _UNLIMITED if trusted else _IMAGE_RATIO
    with (
        _damage_as_file_errors(path, "is damaged or truncated", "copy or download it again"),
        gdal_settings(),
        _open_local(path, header, ratio=ratio) as dataset,
    ):
        if not trusted:
            _refuse_beyond_memory(path, _decoded_size(dataset))
        yield dataset


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
            _refuse_bomb(path, decoded, path.stat().st_size, ratio=_IMAGE_RATIO)
            _refuse_beyond_memory(path, decoded)
            yield image
    except FileError:
        raise
    except Image.DecompressionBombError as error:
        raise FileError(f"{path} is too large for its format ({error}); convert it to a GeoTIFF") from error
    except _PILLOW_DAMAGE as error:
        raise FileError(f"{path} is damaged or truncated ({error}); copy or download it again") from error


@contextmanager
def silent(*categories: type[Warning]) -> Iterator[None]:
    """Keep kinds of warnings from the user while the block runs; one thread at a time."""
    with _FILTERS, warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _damage_as_file_errors(source: Source, problem: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, MemoryError) as error:
        raise FileError(f"{source} {problem} ({error.__cause__ or error}); {remedy}") from error
    except UnicodeEncodeError as error:
        raise FileError(f"{source} has a name that isn't UTF-8, which GDAL can't open; rename it") from error


def _open_local(path: Path, header: Header, *, ratio: int) -> Any:
    """Open with the driver of a format alone, and only if the file refers to none elsewhere and claims what it can."""
    sources = vrt_sources(path) if header.format == "VRT" else []
    for source in sources:
        inner = read_header(source)
        if inner.format != "VRT":
            _open_local(source, inner, ratio=ratio).close()
    _refuse_companions(path)
    if header.format == "HFA":
        refuse_names_elsewhere(path)
    # An absolute path is never taken for GDAL's own syntax.
    with silent(NotGeoreferencedWarning):
        dataset = rasterio.open(path.absolute(), driver=_DRIVERS.get(header.format, header.format))
    return _checked(path, dataset, sum(file.stat().st_size for file in (path, *sources)), ratio=ratio)


def _open_remote(url: str) -> Any:
    scheme = _scheme(url)
    prefix = _REMOTE[scheme]
    # Each file that may stand beside a remote one costs a request.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), silent(NotGeoreferencedWarning):
        name = prefix + (url if prefix == "/vsicurl/" else url[len(scheme) + 3 :])
        return _checked(url, DatasetReader(name, driver=_REMOTE_DRIVERS), None, ratio=_SCENE_RATIO)


def _scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


def _checked(name: object, dataset: Any, file_size: int | None, *, ratio: int) -> Any:
    """Return an open dataset that names no other file and claims what can be true; else close it and raise FileError.

    Args:
        name: What errors call the file.
        dataset: Its header is looked at, no pixel.
        file_size: Bytes of the file, or of the files behind it; None where that isn't known.
        ratio: Times that the image may be larger.
    """
    try:
        # GDAL would open it with any driver.
        if "OVERVIEW_FILE" in {key.upper() for key in dataset.tags(ns="OVERVIEWS")}:
            raise FileError(f"{name} names another file for its overviews, which isn't read; copy it (gdal_translate)")
        if dataset.count > _MOST_BANDS:
            raise FileError(
                f"{name} claims to hold {dataset.count:,} bands, more than {_MOST_BANDS:,}; choose some of them"
            )
        _refuse_block(name, dataset, file_size)
        if file_size is not None:
            _refuse_bomb(name, _decoded_size(dataset), file_size, ratio=ratio)
    except BaseException:  # nobody else has it to close
        dataset.close()
        raise
    return dataset


def _refuse_block(name: object, dataset: Any, file_size: int | None) -> None:
    items = [_item_size(dtype) for dtype in dataset.dtypes]
    try:
        interleaved = dataset.interleaving == Interleaving.pixel
    except ValueError:  # formats that don't say
        interleaved = True
    height, width = max(dataset.block_shapes, key=lambda shape: shape[0] * shape[1])
    decoded = height * width * (sum(items) if interleaved else max(items))
    if decoded > _SMALL_BLOCK and (file_size is None or decoded > _BLOCK_RATIO * file_size):
        raise FileError(
            f"{name} stores {height:,} × {width:,} pixels in one block, {scaled(decoded)}B to decode; write it again "
            "in tiles of 512 × 512"
        )
    _refuse_beyond_memory(name, decoded)


def _refuse_bomb(name: object, decoded: int, file_size: int, *, ratio: int) -> None:
    """Raise FileError if a file claims to hold far more than its bytes can."""
    if decoded > _SMALL_IMAGE and decoded > ratio * file_size:
        raise FileError(
            f"{name} claims to hold {scaled(decoded)}B of pixels in a file of {scaled(file_size)}B; it is damaged, "
            "nearly empty or made to fill the memory: cut out the part that holds something"
        )


def _refuse_beyond_memory(name: object, decoded: int) -> None:
    """Raise FileError if decoding a whole image takes more memory than there is."""
    free = available_memory() if decoded > _TINY else None
    if free is not None and _COPIES * decoded > free:
        raise FileError(
            f"decoding {name} takes about {scaled(_COPIES * decoded)}B of memory but {scaled(free)}B are free; cut it "
            "into tiles, or use a machine with more memory"
        )


def _refuse_companions(path: Path) -> None:
    """Refuse overviews and masks beside a file that are no TIFF (each may have its own), or name files elsewhere."""
    waiting = [path]
    while waiting:
        file = waiting.pop()
        for companion in (file.with_name(f"{file.name}{suffix}") for suffix in _COMPANIONS):
            if companion.exists():
                if not _first_bytes(companion).startswith(_TIFF_SIGNATURES):
                    raise FileError(f"{companion}, beside {path.name}, is no TIFF; remove it, or make it again")
                waiting.append(companion)
    names = {path.with_suffix(suffix) for suffix in _IMAGINE} | {Path(f"{path}{suffix}") for suffix in _IMAGINE}
    for described in names:
        if described.exists() and _first_bytes(described).startswith(_SIGNATURES["HFA"]):
            refuse_names_elsewhere(described)


def _first_bytes(path: Path) -> bytes:
    """Read the first bytes of a file; FileError if it is none, empty or unreadable."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
            raise FileError(f"{path} is a {kind}; give the path of an image file")
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


def _decoded_size(dataset: Any) -> int:
    """Return the bytes of all pixels of a rasterio dataset."""
    return int(dataset.height * dataset.width * sum(map(_item_size, dataset.dtypes)))


def _item_size(dtype: str) -> int:
    digits = "".join(letter for letter in dtype if letter.isdigit())
    return int(digits) // 8 if digits else 4
