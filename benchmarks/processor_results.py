"""Where results go that depend on the processor: beside those of other processors, named after theirs."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def results_stem(folder: Path, name: str, cpu: str) -> Path:
    """Return the path, without a suffix, of one processor's results.

    Args:
        folder: Where results are collected.
        name: What was measured, such as "scene".
        cpu: The processor as `segshrink.machine.describe_machine` names it.
    """
    return folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', cpu.lower()).strip('-')}"
