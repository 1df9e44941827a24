"""A command under a limit on its memory: libraries that can't get any end the process instead of raising an error."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from segshrink.cli._errors import out_of_memory
from segshrink.folder_lock import claimed
from segshrink.machine import address_space, go_on_in_child
from segshrink.signals import END

# How libraries end a process that gets no memory: abort(), a fault, or an exit status of OpenMP's or the linker's.
_DEATHS = tuple(getattr(signal, name, None) for name in ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGKILL"))
# Less than this some libraries end the process for as soon as they are imported.
_LEAST = 300 * 10**6


def supervise(arguments: Sequence[str], work: Callable[[], int]) -> int:
    """Do ``work`` in a child process, and say in one sentence that memory was used up where that ended it.

    Args:
        arguments: The command line, for the sentence.
        work: Returns an exit status.
    """
    if (address_space() or _LEAST) < _LEAST:
        sys.stderr.write(f"error: {out_of_memory(arguments, wanted=f'at least {_LEAST / 1e6:.0f} MB to begin with')}\n")
        return 1
    ended = go_on_in_child(passed_on=(signal.SIGINT, *END))
    if ended is None:
        return work()
    status, used = ended
    if status >= 0:
        return status
    if -status in _DEATHS:
        sys.stderr.write(
            f"error: {out_of_memory(arguments, wanted=f'more than the {used / 1e6:.0f} MB that it had')}\n"
        )
        _sweep(arguments)
        return 1
    return 128 - status


def _sweep(arguments: Sequence[str]) -> None:
    """Remove the temporary folders that the dead process left where it wrote."""
    places = [Path(value) for option, value in pairwise(arguments) if option in ("-o", "--out")]
    for place in places:
        folder = place if place.is_dir() else place.parent
        with suppress(OSError), claimed(folder):
            pass
