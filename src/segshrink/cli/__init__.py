"""The command line: one file per verb; verbs import their work when they run, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from segshrink.machine import address_space, can_fork

# Verbs that train: worth a restart with a tuned allocator.
_TRAINING = ("compress", "demo", "distill", "prune", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.

    Args:
        arguments: What follows ``segshrink``; by default this process's own arguments, in which case a training
            starts Python anew once, with glibc's allocator tuned.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        if arguments[:1] and arguments[0] in _TRAINING and not {"-h", "--help"} & {*arguments}:
            from segshrink.allocator import restart_with_tuned_allocator

            restart_with_tuned_allocator()
        if address_space() is not None and can_fork():
            from segshrink.cli._supervised import supervise

            return supervise(arguments, lambda: _run(arguments))
    return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    from segshrink.cli._app import run

    return run(list(arguments))
