"""Claims: ``import segshrink`` takes under 0.3 s, every verb's ``--help`` under 0.5 s of processor time.

Run ``python benchmarks/startup.py`` (half a minute). Each program is started anew in turns, after one start that fills
the disk's cache; user and system seconds of its process are counted. Results go beside the script, by processor.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from processor_results import write_results
from segshrink import __version__
from segshrink.machine import describe_machine

REPEATS = 5
VERBS = (
    *("benchmark", "compress", "demo", "distill", "doctor", "evaluate", "export", "inspect"),
    *("predict", "prune", "quantize", "report", "train"),
)
PROGRAMS: dict[str, list[str]] = {
    "python (nothing imported)": ["-c", ""],
    "import segshrink": ["-c", "import segshrink"],
    "segshrink --version": ["-m", "segshrink.cli", "--version"],
    **{f"segshrink {verb} --help": ["-m", "segshrink.cli", verb, "--help"] for verb in VERBS},
}


def processor_seconds(arguments: list[str]) -> float:
    """Return the user and system seconds that a start of Python with these arguments takes."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure() -> dict[str, float]:
    """Return the median seconds of each program, measured in turns."""
    spent: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for repeat in range(REPEATS + 1):
        for name, arguments in PROGRAMS.items():
            seconds = processor_seconds(arguments)
            if repeat:
                spent[name].append(seconds)
    return {name: round(statistics.median(times), 3) for name, times in spent.items()}


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    rows = [f"| `{name}` | {seconds:.2f} |" for name, seconds in record["seconds"].items()]
    machine = record["machine"]
    head = [
        "# What a start costs",
        "",
        f"Written by `python benchmarks/startup.py`, {record['created']}, segshrink {record['segshrink']}, "
        f"{machine['cpu']}, Python {machine['python']}. Processor seconds, median of {REPEATS} starts in turns.",
        "",
        "| program | seconds |",
        "| --- | ---: |",
    ]
    return "\n".join([*head, *rows, ""])


def main() -> None:
    """Measure, print and write."""
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "segshrink": __version__,
        "machine": describe_machine(),
        "seconds": measure(),
    }
    write_results("startup", record, to_markdown)


if __name__ == "__main__":
    main()
