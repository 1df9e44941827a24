"""Keeping a folder, or a name, to one process: who holds it stands in a locked file."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from segshrink.errors import FileError
from segshrink.files import resolved, sweep
from segshrink.machine import ProcessIdentity, lock_file

_LOCK = ".segshrink-lock"
# Folders that this process holds, and the thread that does: a process doesn't hinder itself by a lock.
_CLAIMS: dict[Path, int] = {}


class InUseError(FileError):
    """Another process has it."""


@contextmanager
def claimed(folder: Path, *, tidy: bool = True) -> Iterator[None]:
    """Keep a folder to this process during the block; it is made where it is missing, and removed if it stays empty.

    The lock dies with its process. The folder may be claimed again inside the block.

    Args:
        folder: The folder.
        tidy: Whether what dead processes left anywhere inside it is removed first; not in one that may hold anything,
            which takes long to look through.

    Raises:
        InUseError: Another process holds it (its id, host and start are named).
        FileError: It can't be written.
    """
    place = resolved(folder)
    if _CLAIMS.get(place) == threading.get_ident():
        yield
        return
    missing = [parent for parent in (place, *place.parents) if not parent.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        if place in _CLAIMS:  # not opened: closing it would give the lock away
            raise InUseError(f"{folder} is in use by another thread of this process; wait or choose another folder")
        stream = _locked(place / _LOCK, name=str(folder))
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"can't write {folder}: {error.strerror or error}; choose another folder") from error
    _CLAIMS[place] = threading.get_ident()
    try:
        if tidy:
            sweep(place)
        yield
    finally:
        del _CLAIMS[place]
        _release(stream, place / _LOCK)  # not where the whole folder was replaced and is another's already
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()


def is_abandoned(folder: Path) -> bool:
    """Whether no process keeps a folder to itself; False where that can't be known, as of another host's."""
    try:
        holder = json.loads((resolved(folder) / _LOCK).read_text(encoding="utf-8"))
        owner = ProcessIdentity.parse(holder["process"])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or not to be read while it is locked
        return False
    return owner is not None and owner.runs() is False


@contextmanager
def claimed_name(lock: Path, *, name: str) -> Iterator[None]:
    """Keep something to this process during the block, by a file that is removed afterwards.

    The lock dies with its process.

    Args:
        lock: The file; its folder is made.
        name: What it stands for, in errors.

    Raises:
        InUseError: Another process holds it.
        FileError: It can't be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = _locked(lock, name=name)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"can't write {lock}: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        _release(stream, lock)


def _release(stream: IO[str], path: Path) -> None:
    with suppress(OSError), stream:
        if _is_at(stream, path):
            path.unlink()


def _locked(path: Path, *, name: str) -> IO[str]:
    """Open and lock the file that says who holds something.

    Raises:
        InUseError: Somebody does.
    """
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            _refuse_held(stream, name)
            if _is_at(stream, path):
                break
        except BaseException:  # Ctrl-C, too, must leave no lock
            stream.close()
            raise
        stream.close()  # its holder was done and removed it meanwhile
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    holder = {"process": str(ProcessIdentity.own()), "host": platform.node(), "since": since}
    try:
        stream.truncate(0)
        os.write(stream.fileno(), json.dumps(holder).encode())  # past the stream, which would try again when closed
    except OSError:
        path.unlink()
        stream.close()
        raise
    return stream


def _refuse_held(stream: IO[str], name: str) -> None:
    """Lock an open file; where that can't be done, its holder's process must be gone."""
    locked = lock_file(stream)
    if locked:
        return
    holder, owner = {}, None
    with suppress(ValueError, OSError):  # not written yet, or not to be read while it is locked
        stream.seek(0)
        holder = json.load(stream)
        owner = ProcessIdentity.parse(holder["process"])
    if locked is None and (owner is None or owner.runs() is False):
        return
    holder_name = f"process {owner.pid} on {holder['host']} since {holder['since']}" if owner else "another process"
    remedy = "" if locked is False else f", or delete {stream.name} if that process is gone"
    raise InUseError(f"{name} is in use by {holder_name}; wait for it or choose another folder{remedy}")


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
