"""What a user may name as scenes: files, folders, wildcards and URLs; and opening one of them with GDAL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from segshrink.errors import FileError
from segshrink.file_search import WILDCARD, find_files, is_file
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.limits import IMAGE_RATIO, SCENE_RATIO, refuse_claims
from segshrink.imagery.opening import (
    PILLOW_FORMATS,
    REMOTE_DRIVERS,
    local_settings,
    open_safely,
    refuse_references,
    scene_header,
    silent,
)

# Files of a folder that are taken for scenes.
SCENE_SUFFIXES = frozenset(
    (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".img", ".bmp", ".webp", ".gif", ".dat", ".bil")
)
# What stands beside scenes and describes them.
_SIDECARS = (".aux.xml", ".ovr", ".msk", ".tfw", ".jgw", ".pgw", ".wld", ".prj", ".hdr", ".txt", ".json", ".xml")
# URL schemes, and GDAL's file systems behind them.
_REMOTE = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
# What GDAL keeps of decoded blocks, in bytes, whatever the size of a scene: a row of tiles of 512 rows, 80,000 columns
# and three bytes. GDAL reads this once, with the first block of the process.
_CACHE_BYTES = 128 << 20

Source = str | Path


def expand_sources(sources: Sequence[Source]) -> list[Source]:
    """Turn what a user names into single scenes, each once, in the order named; see ``placed_sources``."""
    return list(placed_sources(sources))


def placed_sources(sources: Sequence[Source], *, leave_out: Path | None = None) -> dict[Source, Path]:
    """Turn what a user names into single scenes, each once, in the order named, and the sub-folder each lies in.

    A folder stands for the images directly in it, or where it holds none for those in its sub-folders, a wildcard
    (``*``, ``?``, ``[...]``, ``**`` for any folders) for what it matches; an existing file is taken as it is, whatever
    its name. Hidden files and those that describe others (``.aux.xml``, ``.ovr``, ``.msk``, world files) are left out
    of folders and wildcards. URLs stay as they are.

    Args:
        sources: Files, folders, wildcards, URLs.
        leave_out: A folder that no sub-folder may be, such as that of the results.

    Returns:
        Scene → its folder relative to the folder named; "." for all others.

    Raises:
        FileError: Something named doesn't exist, or a folder or wildcard holds no image.
    """
    found: dict[Source, Path] = {}
    here = Path()
    for source in sources:
        if is_remote(source):
            found.setdefault(str(source), here)
            continue
        path = _at_home(Path(source))
        if is_file(path):
            found.setdefault(path, here)
        elif path.is_dir():
            for image in _in_folder(path, leave_out):
                found.setdefault(image, image.parent.relative_to(path))
        elif WILDCARD.search(str(path)):
            for image in _matching(path):
                found.setdefault(image, here)
        else:
            raise FileError(f"{path} does not exist; give an image file, a folder, a wildcard in quotes or a URL")
    if not found:
        raise FileError("no scene was named; give an image file, a folder, a wildcard in quotes or a URL")
    return found


def is_remote(source: Source) -> bool:
    """Whether a source is a URL (http, https, s3, gs, az)."""
    return isinstance(source, str) and _scheme(source) in _REMOTE


def scene_name(source: Source) -> str:
    """Return the file name of a source without its suffix; of a URL without query."""
    if isinstance(source, str) and is_remote(source):
        return PurePosixPath(unquote(urlsplit(source).path)).stem or "scene"
    return Path(source).stem


@contextmanager
def gdal_settings() -> Iterator[None]:
    """Read with GDAL as scenes need it: a bounded block cache, damage reported, retries over the network."""
    with local_settings(
        GDAL_CACHEMAX=_CACHE_BYTES,
        GDAL_HTTP_MAX_RETRY=3,
        GDAL_HTTP_RETRY_DELAY=1,
        GDAL_HTTP_TIMEOUT=60,
        GDAL_HTTP_CONNECTTIMEOUT=20,
    ):
        yield


def open_source(source: Source) -> Any:
    """Open a source as a rasterio dataset of its own, inside ``gdal_settings``.

    Raises:
        FileError: It is missing, empty, no image, damaged, unreachable, or holds several images and none itself.
    """
    if is_remote(source):
        # Each file that may stand beside a remote one costs a request.
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            _told(source, "check the address, and the network"),
        ):
            return _open_remote(str(source))
    if isinstance(source, str) and "://" in source:
        raise FileError(f"{source} can't be opened; give a local path or a URL of {', '.join(_REMOTE)}")
    path = Path(source)
    header = scene_header(path)
    ratio = IMAGE_RATIO if header.format in PILLOW_FORMATS else SCENE_RATIO
    with _told(path, "replace it by a GeoTIFF, JPEG2000, JPEG, PNG or VRT file, or copy it again"):
        return open_safely(path, header, ratio=ratio)


def read_georeference(source: Source) -> Georeference:
    """Read where an image lies; errors as in ``open_source``."""
    with gdal_settings(), open_source(source) as dataset:
        return Georeference.of(dataset)


def _open_remote(url: str) -> Any:
    with silent(NotGeoreferencedWarning):
        dataset = DatasetReader(_remote_path(url), driver=REMOTE_DRIVERS)
    try:
        refuse_references(url, dataset)
        refuse_claims(url, dataset, None, ratio=SCENE_RATIO)
    except BaseException:
        dataset.close()
        raise
    return dataset


@contextmanager
def _told(source: Source, remedy: str) -> Iterator[None]:
    """Turn what GDAL raises into a FileError."""
    try:
        yield
    except FileError:
        raise
    except (RasterioError, OSError) as error:
        reason = error.__cause__ or error
        raise FileError(f"{source} can't be read as an image ({reason}); {remedy}") from error
    except UnicodeEncodeError as error:
        raise FileError(f"{source} has a name that isn't UTF-8, which GDAL can't open; rename it") from error


def _remote_path(url: str) -> str:
    scheme = _scheme(url)
    prefix = _REMOTE[scheme]
    return prefix + (url if prefix == "/vsicurl/" else url[len(scheme) + 3 :])


def _scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise FileError(f"{path} can't be found: there is no user of that name; check the path") from error


def _in_folder(folder: Path, leave_out: Path | None) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f"can't list {folder}: {error.strerror or error}; check its permissions") from error
    found = [entry for entry in entries if _is_image(entry)]
    if not found:
        below = (folder / name for name in find_files("**/*", folder))
        found = [path for path in below if _is_image(path) and leave_out not in path.resolve().parents]
    if not found:
        raise FileError(
            f"the folder {folder} holds no image ({', '.join(sorted(SCENE_SUFFIXES))}), nor do its sub-folders; check "
            "the path"
        )
    return found


def _matching(pattern: Path) -> list[Path]:
    images = [path for path in map(Path, find_files(pattern.as_posix(), Path())) if _is_scene(path)]
    if not images:
        raise FileError(f"no image matches {pattern}; check the wildcard")
    return images


def _is_scene(path: Path) -> bool:
    name = path.name.lower()
    return is_file(path) and not name.startswith(".") and not name.endswith(_SIDECARS)


def _is_image(path: Path) -> bool:
    return _is_scene(path) and path.suffix.lower() in SCENE_SUFFIXES
