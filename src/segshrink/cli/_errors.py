"""Errors as one sentence: what is wrong, with which file, what to do."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Sequence

from segshrink.machine import address_space, peak_memory_mb

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


def interrupted_sentence(arguments: Sequence[str]) -> str:
    """Say that the command was interrupted, and how to go on."""
    verb = arguments[0] if arguments else ""
    taught = verb == "prune" and any(text.startswith(("--recipe", "-r")) for text in arguments)
    if not taught and verb not in ("compress", "demo", "distill", "predict", "train", "tune"):
        return "interrupted"
    again = [*arguments] if verb in ("demo", "predict") or "--resume" in arguments else [*arguments, "--resume"]
    return f"interrupted; go on with: segshrink {shlex.join(again)}"


# How libraries say that memory is used up, and how much more they wanted.
_NO_MEMORY = re.compile(
    r"bad.?alloc|bad allocation|out of memory|not enough memory|(un|can't|cannot|failed to) ?(able to )?allocate|"
    r"no memory|new thread|failed to map segment",
    re.IGNORECASE,
)
_WANTED = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_LESS = {
    "train": "smaller or fewer crops (crops.size, crops.batch_size)",
    "predict": "smaller tiles (--tile)",
}
_LESS.update(dict.fromkeys(("distill", "compress", "prune", "demo"), _LESS["train"]))


def memory_sentence(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Say that memory was used up, how much was wanted, and what to do; None for another error."""
    if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
        return None
    amount = _WANTED.search(str(error))
    more = f"{amount[1]} {amount[2]} more" if amount else f"more than the {peak_memory_mb():.0f} MB that it had"
    return out_of_memory(arguments, wanted=more)


def out_of_memory(arguments: Sequence[str], *, wanted: str) -> str:
    """Say that a verb ran out of memory, and what it would have needed."""
    verb = arguments[0] if arguments else ""
    limit = address_space()
    limited = f" and is limited to {limit / 1e6:.0f} MB (ulimit -v)" if limit else ""
    return (
        f"segshrink {verb} has used up its memory{limited} and needs {wanted}; close other programs, allow it more, or "
        f"ask for {_LESS.get(verb, 'less at once')}"
    )
