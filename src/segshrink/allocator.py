"""Restarting Python with an allocator that keeps large tensors' memory."""

from __future__ import annotations

import os
import platform
import sys

# glibc maps every tensor over 32 MiB anew, zeroes and faults it in: training with big activations takes up to twice
# as long. These keep freed memory; they are read before Python starts, hence the restart.
TUNED_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "67108864",
}
_ALLOCATOR_MARK = "SEGSHRINK_ALLOCATOR"


def restart_with_tuned_allocator() -> None:
    """Start this very command again with glibc's allocator tuned; does nothing elsewhere, or if any variable is set.

    ``SEGSHRINK_ALLOCATOR=default`` keeps the allocator as it is.
    """
    glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    if (
        not glibc
        or _ALLOCATOR_MARK in os.environ
        or any(name in os.environ for name in TUNED_ALLOCATOR)
        or "LD_PRELOAD" in os.environ
    ):
        return
    environment = {**os.environ, **TUNED_ALLOCATOR, _ALLOCATOR_MARK: "tuned"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
