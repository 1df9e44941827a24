"""Files by their content: the cache folder of what is decoded, and keys that are remembered while a file stays."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from segshrink.errors import FileError
from segshrink.files import content_key, expanded, replacing
from segshrink.imagery.vrt import vrt_sources

# Part of every key: raise it when decoding changes, and old arrays are no longer found.
FORMAT_VERSION = 4

# A file that was written this short a time ago may change again without a new time stamp; its key isn't remembered.
_SETTLED_SECONDS = 2.0

# Endings of files that belong to one: GDAL's masks and notes (no-data values, band names), and what a GeoPackage
# hasn't taken in yet.
_BESIDE = (".msk", ".MSK", ".aux.xml", "-wal")


def cache_folder() -> Path:
    """Return ``$SEGSHRINK_CACHE``, or ``segshrink`` in the user's cache folder (``$XDG_CACHE_HOME``)."""
    chosen = os.environ.get("SEGSHRINK_CACHE")
    if chosen:
        return expanded(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else expanded("~/.cache")) / "segshrink"


def remembered_key(path: Path, folder: Path) -> str:
    """Return the SHA-256 of a file's content; an unchanged (path, size, modification time) isn't hashed again.

    Where more files belong to it (a VRT's sources, ``.msk`` and ``.aux.xml`` beside a raster) it is the SHA-256 of all
    of theirs.

    Args:
        path: The file.
        folder: Cache folder, where keys are remembered.

    Raises:
        FileError: The file can't be read.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # Path.absolute keeps "..", under which one file has many names
    files = _files_of(path)
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    stamp = [[str(file), status.st_size, status.st_mtime_ns] for file, status in zip(files, stats, strict=True)]
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    note = folder / f"v{FORMAT_VERSION}" / "keys" / name[:2] / f"{name}.json"
    try:
        note_content = json.loads(note.read_text(encoding="utf-8"))
        if note_content["stamp"] == stamp:
            return str(note_content["key"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known yet, or damaged: hash the file
    keys = [content_key(file) for file in files]
    key = keys[0] if len(keys) == 1 else hashlib.sha256(" ".join(keys).encode()).hexdigest()
    if all(abs(time.time() - status.st_mtime) > _SETTLED_SECONDS for status in stats):
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"stamp": stamp, "key": key}), encoding="utf-8")
    return key


def pixel_files(path: Path) -> list[Path]:
    """Return the files that hold an image's pixels: itself, and a VRT's sources."""
    return [path, *(vrt_sources(path) if path.suffix.lower() == ".vrt" else ())]


def _files_of(path: Path) -> list[Path]:
    """Return a file and the others that its pixels or features come from: a VRT's sources, masks, open transactions."""
    files = pixel_files(path)
    beside = [f"{file}{ending}" for file in files for ending in _BESIDE]
    return [*files, *(Path(file) for file in beside if os.path.exists(file))]  # noqa: PTH110  # texts are quicker
