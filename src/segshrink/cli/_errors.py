"""Errors as one sentence: what is wrong, with which file, what to do."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    "ENOSPC": "no space is left; free some or choose another folder",
    "EDQUOT": "the disk quota is used up; free some space or choose another folder",
    "EFBIG": "a file may not grow so large here; raise the limit (ulimit -f) or choose another folder",
    "EACCES": "permission is denied; change the permissions or choose another folder",
    "EPERM": "permission is denied; change the permissions or choose another folder",
    "EROFS": "the file system is read-only; choose another folder",
    "ENOENT": "no such file or folder; check the path",
    "ENOTDIR": "a part of this path is a file, not a folder; choose another folder",
    "EISDIR": "this is a folder; give a file",
}


def os_sentence(error: OSError) -> str:
    """Turn an operating system's error into one sentence with the file and the remedy."""
    reason = _REMEDIES.get(errno.errorcode.get(error.errno or 0, ""), error.strerror or str(error))
    return f"{error.filename or 'a file'}: {reason}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name ``folder`` in an operating system's error of the block that names no file itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


def interrupted_sentence(arguments: Sequence[str]) -> str:
    """Say that the command was interrupted, and how to go on."""
    verb = arguments[0] if arguments else ""
    taught = verb == "prune" and any(text.startswith(("--recipe", "-r")) for text in arguments)
    if not taught and verb not in ("compress", "demo", "distill", "predict", "train"):
        return "interrupted"
    again = [*arguments] if verb in ("demo", "predict") or "--resume" in arguments else [*arguments, "--resume"]
    return f"interrupted; go on with: segshrink {shlex.join(again)}"
