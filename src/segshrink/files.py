"""Writing files whole or not at all, and naming file content."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segshrink.errors import FileError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends well.

    Works for a file or a folder that the block creates at the temporary name. When the block fails, nothing is
    left under either name and what stood at ``path`` before is untouched.

    Raises:
        FileError: The parent folder can't be created or written (permission, disk full).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".segshrink-", dir=path.parent))
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror or error}; check the folder's permissions") from error
    temporary = scratch / path.name
    try:
        yield temporary
        _move(temporary, path, aside=scratch / "replaced")
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"can't write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move(source: Path, target: Path, *, aside: Path) -> None:
    """Rename ``source`` to ``target``; a folder that stands there goes ``aside`` first, and back if that fails."""
    if not (source.is_dir() and target.is_dir()):
        source.replace(target)
        return
    target.rename(aside)
    try:
        source.rename(target)
    except BaseException:
        aside.rename(target)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all; NaN must be replaced by None before."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileError: The file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not valid JSON ({error}); write it again") from error


def content_key(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
