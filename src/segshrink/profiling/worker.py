"""Opens one model and times it on demand: ``python -P worker.py JOB``, where JOB is a job as JSON.

A program of its own, because the largest resident set of a process can only grow, and because threads are set before
anything is imported. It is run as a file, because as a module it would import its package before the baseline is taken.

It talks in lines of JSON. The first, when the model is open and has run once, is ``{"peak_memory_mb",
"baseline_memory_mb"}``. Then, for every request ``{"runs": n, "idle": m}`` on standard input, ``{"seconds": [...]}``
with the times of n runs, after m that aren't counted. What fails is ``{"error": "..."}``, and the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO


def main(arguments: list[str]) -> int:
    """Serve until standard input ends; return the exit status."""
    answers = _claim_standard_output()
    try:
        _serve(json.loads(arguments[0]), sys.stdin, lambda answer: _write(answers, answer))
    except Exception as error:  # whatever a runtime raises is one model's failure, which the parent reports
        _write(answers, {"error": _sentence(error)})
        return 1
    return 0


def _serve(job: dict[str, Any], requests: TextIO, answer: Callable[[dict[str, Any]], None]) -> None:
    import numpy  # noqa: F401 - part of the baseline

    from segshrink.machine import peak_memory_mb

    import_module(job["module"])
    baseline = peak_memory_mb()
    from segshrink.prediction import open_backend

    backend = open_backend(job["source"], runtime=job["runtime"], precision=job["precision"], threads=job["threads"])
    images = noise(job["batch"], job["size"], backend.bands)
    backend.classify(images)
    answer({"peak_memory_mb": peak_memory_mb(), "baseline_memory_mb": baseline})
    for line in requests:
        request = json.loads(line)
        answer({"seconds": run_times(lambda: backend.classify(images), **request)})


def noise(batch: int, size: int, bands: int) -> Any:
    """Return the same raw pixels (batch, size, size, bands), uint8, at every call."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, size, size, bands), dtype=np.uint8)


def run_times(run: Callable[[], object], *, runs: int, idle: int) -> list[float]:
    """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted."""
    for _ in range(idle):
        run()
    return [_timed(run) for _ in range(runs)]


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _claim_standard_output() -> TextIO:
    """Return a stream to where standard output goes, and send what libraries print to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _write(stream: TextIO, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _sentence(error: Exception) -> str:
    """Return the text of one of our errors, else the kind and first line of a library's."""
    from segshrink.errors import SegshrinkError

    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    return first if isinstance(error, SegshrinkError) and first else f"{type(error).__name__}: {first}".rstrip(": ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
