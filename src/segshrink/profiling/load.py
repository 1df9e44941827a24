"""How busy other programs kept the cores while something was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from segshrink.machine import usable_cores

# So large a share of the cores, and larger ones, spoil a measurement.
BUSY = 0.10


@dataclass(frozen=True)
class Load:
    """What other programs took of the cores that this process may use.

    Attributes:
        seconds: Wall time that was watched.
        others: Core-seconds that other programs computed meanwhile; None where that can't be told.
        cores: How many cores were watched.
    """

    seconds: float = 0.0
    others: float | None = 0.0
    cores: int = 1

    @property
    def share(self) -> float | None:
        """Others' share of the cores, 0 to 1; None where unknown."""
        if self.others is None or not self.seconds:
            return None
        return min(1.0, max(0.0, self.others / (self.seconds * self.cores)))

    @property
    def busy(self) -> bool:
        """Whether others took so much that the times are to be doubted."""
        return is_busy(self.share)

    @property
    def sentence(self) -> str:
        """What to say about it; empty when the machine was quiet."""
        if self.share is None:
            return "what other programs computed meanwhile is unknown (pip install psutil)"
        if not self.busy:
            return ""
        return (
            f"other programs took {self.share:.0%} of the {self.cores} cores while this was measured, so times are too "
            "long and jobs with all threads suffer most: measure again on a quiet machine"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return ``others`` (their share of the cores, None where unknown), ``cores``, ``seconds`` and ``busy``."""
        share = None if self.share is None else round(self.share, 4)
        return {"others": share, "cores": self.cores, "seconds": round(self.seconds, 1), "busy": self.busy}

    def __add__(self, other: Load) -> Load:
        others = None if self.others is None or other.others is None else self.others + other.others
        return Load(self.seconds + other.seconds, others, other.cores)


def is_busy(share: float | None) -> bool:
    """Whether others took so large a share of the cores that times are to be doubted; an unknown share isn't."""
    return share is not None and share >= BUSY


class LoadWatch:
    """Measures the load between its making and ``stop``.

    Args:
        own: Processes that count as ours beside this one; they must live until ``stop``.
    """

    def __init__(self, own: Iterable[int]) -> None:
        self._spent = dict.fromkeys((os.getpid(), *own), 0.0)
        self._start = self._reading()

    def stop(self) -> Load:
        """Return the load since this watch was made."""
        seconds, busy, cores = self._reading()
        before_seconds, before_busy, _ = self._start
        others = None if busy is None or before_busy is None else busy - before_busy
        return Load(seconds - before_seconds, others, cores)

    def _reading(self) -> tuple[float, float | None, int]:
        """Return the time, the core-seconds that others computed so far on our cores, and how many cores these are."""
        try:
            import psutil
        except ModuleNotFoundError:
            return time.perf_counter(), None, 1
        every = psutil.cpu_times(percpu=True)
        ours = [every[core] for core in usable_cores() if core < len(every)]
        busy = sum(_busy(core) for core in ours)
        for pid in self._spent:
            with suppress(psutil.Error):  # of one that died, what it had spent before is known
                spent = psutil.Process(pid).cpu_times()
                self._spent[pid] = spent.user + spent.system
        busy -= sum(self._spent.values())
        return time.perf_counter(), busy, max(1, len(ours))


def _busy(core: Any) -> float:
    """Return the seconds a core computed; a guest's are part of the user's."""
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return float(sum(getattr(core, name, 0.0) for name in names))
