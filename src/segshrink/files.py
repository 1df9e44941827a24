"""Writing files whole or not at all, never over what somebody else wrote, and naming file content."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshrink.errors import FileError
from segshrink.formatting import shortened
from segshrink.machine import ProcessIdentity
from segshrink.model_file import CONFIG_FILE, WEIGHTS_FILE, graph_of
from segshrink.version import __version__

# Folder for temporary names beside what is written, and the place inside a temporary folder where a replaced folder
# waits until its successor has its name.
_SCRATCH, _ASIDE = ".segshrink-scratch", "replaced"
# By what a file says that this program wrote it.
_MARKS = {
    ".onnx": rb"\x0a\x09segshrink\x12",  # a key of the metadata as protobuf writes it
    ".xml": rb"<segshrink value=",
    ".tflite": rb"segshrink\.json",
    ".png": rb"tEXtSoftware\x00segshrink",
    **dict.fromkeys((".jpg", ".jpeg"), rb"\xff\xfe..written by segshrink"),
    **dict.fromkeys(
        (".md", ".html", ".htm", ".qml"), rb'<!--[ a-z]* written by segshrink|<meta name="generator" content="segshrink'
    ),
    **dict.fromkeys((".yaml", ".yml"), rb"(?m)^# written by segshrink"),
    ".svg": rb"<dc:title>segshrink",
    ".json": rb'"segshrink"',
}
_LARGEST_JSON = 10**8
_COMMENTS = dict.fromkeys((".md", ".html", ".htm", ".qml"), "<!-- {} -->") | dict.fromkeys((".yaml", ".yml"), "# {}")


@dataclass(frozen=True)
class FolderKind:
    """What a folder that is replaced as a whole is called, such as "a model", and the names of all that it may hold."""

    name: str
    parts: tuple[str, ...]


@contextmanager
def replacing(
    path: Path, *, overwrite: bool | None = None, kind: FolderKind | None = None, durable: bool = False
) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends well.

    Works for a file or a folder that the block creates at the temporary name. When the block fails, nothing is
    left under either name and what stood at ``path`` before is untouched. Where ``path`` is a link, its target is
    written and the link stays.

    Args:
        path: File or folder to write.
        overwrite: Whether to replace what this program did not write, see ``refuse_foreign``; files of other names
            then stay in the folder. None replaces whatever is there, as is right for caches and temporary files.
        kind: What a folder must be to be replaced; None: any of this program's.
        durable: Wait until a file's bytes are on the disk before it gets its name, so that a power failure can't
            leave a file of the right size full of zeros.

    Raises:
        FileError: Something else stands at ``path``, or its folder can't be created or written (permission, disk full).
    """
    path = Path(path)
    target = resolved(path)

    def guard() -> None:
        if overwrite is not None:
            refuse_foreign(path, overwrite=overwrite, kind=kind)

    guard()
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_folder(target.parent))
        except OSError as error:
            raise FileError(f"can't write {path}: {error.strerror or error}; check the folder's permissions") from error
        temporary = scratch / target.name
        try:
            yield temporary
            if durable:
                with temporary.open("r+b") as stream:
                    os.fsync(stream.fileno())
            guard()  # something may have been put there meanwhile
            if overwrite and target.is_dir():
                for foreign in _foreign(target, kind):
                    _keep(foreign, temporary / foreign.relative_to(target))
            _move(temporary, target, aside=scratch / _ASIDE / target.name)
        except FileError as error:
            if str(temporary) not in str(error):
                raise
            raise FileError(str(error).replace(str(temporary), str(path))) from error
        except OSError as error:
            if isinstance(error.filename, str | os.PathLike):
                place = Path(error.filename)
                if not (place.is_relative_to(scratch) or place.is_relative_to(target)):
                    raise  # about another file
            raise FileError(
                f"can't write {path}: {error.strerror or error}; free some space or choose another folder"
            ) from error


def refuse_foreign(*paths: Path, overwrite: bool | None = None, kind: FolderKind | None = None) -> None:
    """Refuse to replace what this program did not write.

    A file is this program's when it says so itself: JSON by the key ``segshrink``, text by a comment, models and
    pictures by their metadata. An OpenVINO ``.bin`` belongs to its ``.xml``, ``model.safetensors`` to its
    ``config.json``. A folder is this program's when all files in it are.

    Args:
        paths: Files or folders to write; what isn't there or is an empty folder is fine.
        overwrite: True allows it, False refuses and names the option, None refuses where there is no such option.
        kind: What a folder must be to be replaced; None: any of this program's.

    Raises:
        FileError: One of them holds something else; says which file.
    """
    option = "" if overwrite is None else ", or allow it with --overwrite (overwrite=True)"
    for path in paths if not overwrite else ():
        if (foreign := next(_foreign(Path(path), kind), None)) is not None:
            reason = f"{foreign} was not written by segshrink"
            if kind is not None:
                reason = f"{path} holds something other than {kind.name} ({foreign})"
            raise FileError(f"{reason}, so it is not replaced; move it away or choose another place{option}")


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Give an empty folder that is removed afterwards; those that dead processes left there are removed first.

    Args:
        parent: Where it is made; None: in the system's temporary folder.

    Raises:
        OSError: It can't be made.
    """
    home = Path(tempfile.gettempdir()) if parent is None else parent / _SCRATCH
    while True:
        home.mkdir(parents=True, exist_ok=True)
        try:
            _sweep(home)
            scratch = Path(tempfile.mkdtemp(prefix=f".segshrink-{ProcessIdentity.own()}-", dir=home))
            break
        except FileNotFoundError:  # another process has just removed ``home``
            continue
    try:
        yield scratch
    finally:
        _discard(scratch)
        if parent is not None:
            with suppress(OSError):  # another process is still at work in it
                home.rmdir()


def sweep(folder: Path, *, deep: bool = True) -> None:
    """Remove what dead processes left in a folder; a folder that was just replaced gets its name back.

    Args:
        folder: The folder.
        deep: Whether to look anywhere inside it.
    """
    for home in folder.rglob(_SCRATCH) if deep else [folder / _SCRATCH]:
        _sweep(home)
        with suppress(OSError):
            home.rmdir()


def write_text(path: Path, text: str, *, overwrite: bool | None = None) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all.

    With ``overwrite`` given, see ``replacing``, a comment at the end says who wrote it, where that kind has comments.
    Bytes of file names that aren't UTF-8 are written as escapes, which JSON reads back.
    """
    suffix = Path(path).suffix.lower()
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if overwrite is not None and suffix in _COMMENTS and not re.search(_MARKS[suffix], text.encode()):
        text = f"{text.rstrip()}\n{_COMMENTS[suffix].format(f'written by segshrink {__version__}')}\n"
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, overwrite: bool | None = None) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all; NaN must be replaced by None before.

    With ``overwrite`` given, see ``replacing``, an object gets the key ``segshrink``, by which it is known again.
    """
    if overwrite is not None:
        value = {"segshrink": __version__, **value}
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_text(path, text, overwrite=overwrite)


def read_json(path: Path) -> Any:
    """Read a JSON file of at most 10^8 bytes, whose numbers are finite.

    Raises:
        FileError: The file is missing, unreadable, larger or not JSON.
    """
    try:
        if Path(path).stat().st_size > _LARGEST_JSON:
            raise ValueError(f"it has more than {_LARGEST_JSON:,} bytes")
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_finite)
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not valid JSON ({error}); write it again") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(text, 20)} is no number")
    return value


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name ``folder`` in an operating system's error of the block that names no file itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


def content_key(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check the path") from error


def is_utf8(path: str | Path) -> bool:
    """Whether a path can be written in UTF-8, as most libraries that open files want it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def expanded(path: str | Path) -> Path:
    """Return a path that may begin with a user's home, "~" or "~name".

    Raises:
        FileError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileError(f"{path} can't be found: there is no user of that name; check the path") from error


def resolved(path: Path) -> Path:
    """Return where a path leads, through links."""
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for links in a circle
        raise FileError(f"can't follow the link {path}: {error}; choose another path") from error
    if resolved.is_symlink():  # Python 3.13 leaves it as it is
        raise FileError(f"can't follow the link {path}: it leads in a circle; choose another path")
    return resolved


def _foreign(path: Path, kind: FolderKind | None = None) -> Iterator[Path]:
    """Yield the files at or below a path that this program didn't write; empty folders and links below it, too."""
    try:
        if path.is_dir():
            for child in sorted(path.iterdir()):
                if child.name.startswith(".segshrink-"):
                    continue
                empty = child.is_dir() and not any(child.iterdir())
                if child.is_symlink() or empty or (kind is not None and child.name not in kind.parts):
                    yield child
                else:
                    yield from _foreign(child)
        elif path.exists() and not _is_own(path):
            yield path
    except OSError:
        yield path


def _is_own(path: Path) -> bool:
    """Whether a file says that this program wrote it."""
    path = path.with_name(CONFIG_FILE) if path.name == WEIGHTS_FILE else graph_of(path)
    mark = _MARKS.get(path.suffix.lower())
    if mark is None or not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if re.search(mark, content, re.DOTALL) is None:
            return False
    if path.suffix.lower() != ".json":
        return True
    with suppress(FileError):
        value = read_json(path)
        return isinstance(value, dict) and isinstance(value.get("segshrink"), str)
    return False


def _move(source: Path, target: Path, *, aside: Path) -> None:
    """Rename ``source`` to ``target``; a folder that stands there goes ``aside`` first, see ``_discard``."""
    if not (source.is_dir() and target.is_dir()):
        source.replace(target)
        return
    aside.parent.mkdir()
    target.rename(aside)
    source.rename(target)


def _keep(source: Path, target: Path) -> None:
    """Let a file, link or folder of somebody else's stand at ``target`` too, unless something does."""
    if os.path.lexists(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _sweep(home: Path) -> None:
    """Remove temporary folders whose process is gone; a folder that it was just replacing gets its name back."""
    for scratch in home.glob(".segshrink-*-*"):
        owner = ProcessIdentity.parse(scratch.name.removeprefix(".segshrink-").rpartition("-")[0])
        if owner is None or owner.runs() is not False:
            continue
        _discard(scratch)


def _discard(scratch: Path) -> None:
    """Remove a temporary folder; a folder in it that waits for its successor gets its name back instead."""
    for aside in (scratch / _ASIDE).glob("*"):
        former = scratch.parent.parent / aside.name
        if os.path.lexists(former):
            continue
        try:
            aside.replace(former)
        except OSError:
            return  # better left behind than lost
    shutil.rmtree(scratch, ignore_errors=True)
