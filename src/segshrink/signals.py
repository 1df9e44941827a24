"""Ending in good order when the system asks for it: SIGTERM, and SIGHUP unless it is ignored (nohup)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What asks a program to end, beside Ctrl-C.
END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds after which a request that Python dropped is made again.
_AGAIN = 0.2


class Terminated(SystemExit):
    """A signal asked the program to end; its exit status is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def in_main_thread() -> bool:
    """Tell whether signals may be taken over here."""
    return threading.current_thread() is threading.main_thread()


def end(number: int, frame: FrameType | None = None) -> None:
    """Raise ``Terminated``, or ``KeyboardInterrupt`` for Ctrl-C; further requests don't disturb what cleans up then."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    for each in END:
        signal.signal(each, signal.SIG_IGN)
    raise Terminated(number)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let ``SIGTERM`` and ``SIGHUP`` raise ``Terminated`` in the block, so that it leaves nothing behind."""
    if not in_main_thread():
        yield
        return
    former = {number: handler for number in END if (handler := signal.getsignal(number)) is not None}
    former_hook = sys.unraisablehook

    def ask_again(dropped: Any) -> None:
        """Python drops what is raised inside finalizers and callbacks of libraries."""
        if not isinstance(dropped.exc_value, Terminated):
            former_hook(dropped)
            return
        number = int(str(dropped.exc_value)) - 128
        signal.signal(number, end)
        threading.Timer(_AGAIN, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = ask_again
    for number, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        sys.unraisablehook = former_hook
        for number, handler in former.items():
            signal.signal(number, handler)
