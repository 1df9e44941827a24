"""A process that opens one model and times it on demand, and the same process seen from outside.

``python -P worker.py JOB``, where JOB is a job as JSON, is a program of its own, because the largest resident set of a
process can only grow, and because threads are set before anything is imported. It is run as a file and imports what it
needs inside functions, so that little but Python is there when the baseline is taken.

It talks in lines of JSON. The first, when the model is open and has run once, is ``{"peak_memory_mb",
"baseline_memory_mb"}``. Then, for every request ``{"runs": n, "idle": m}`` on standard input, ``{"seconds": [...]}``
with the times of n runs, after m that aren't counted. What fails is ``{"error": "..."}``, and the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from segshrink.errors import ModelError, SegshrinkError
from segshrink.machine import last_words, peak_memory_mb
from segshrink.user_code import all_trusted, trusted_functions

if TYPE_CHECKING:
    from segshrink.prediction import Backend
    from segshrink.profiling.latency import Job

PROGRAM = Path(__file__)
# What libraries read to choose their number of threads, when they are imported.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# A process that is told to end has this many seconds to do so.
PATIENCE = 5


class Worker:
    """A fresh process that holds one job's model open and times it when asked.

    Making one waits until its model is open and has run once.

    Args:
        job: What it measures.

    Attributes:
        pid: Its process.
        memory: ``peak_memory_mb`` and ``baseline_memory_mb``, in 10^6 bytes.

    Raises:
        ModelError: The process failed or died; the sentence names source, runtime and shape.
    """

    def __init__(self, job: Job) -> None:
        self._title = job.title
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        settings = {name: getattr(job, name) for name in ("runtime", "module", "precision", "size", "batch", "trust")}
        sources = [str(source) for source in (job.source, *job.others)]
        extent = {"sources": sources, "threads": job.cores, "trusted": all_trusted()}
        request = json.dumps({**settings, **extent})
        threads = dict.fromkeys(_THREAD_VARIABLES, str(job.cores))
        try:
            # -P: a file beside the program must not stand in for one of Python's own modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), request],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                encoding="utf-8",
                env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
            )
        except OSError as error:
            self._complaints.close()
            raise ModelError(f"{job.title} can't be measured: no process could be started ({error})") from error
        self._requests = cast(TextIO, self._process.stdin)
        self._answers = cast(TextIO, self._process.stdout)
        self.pid: int = self._process.pid
        try:
            self.memory: dict[str, float] = self._answer()
        except BaseException:  # whatever ends it, the process must go
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def time(self, runs: int, *, idle: int = 0) -> list[float]:
        """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted.

        Raises:
            ModelError: The process failed or died.
        """
        with suppress(OSError):  # a dead one can't listen; why it died comes with its answer
            self._requests.write(json.dumps({"runs": runs, "idle": idle}) + "\n")
            self._requests.flush()
        seconds: list[float] = self._answer()["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._requests.close()
        self._wait()
        self._answers.close()
        self._complaints.close()

    def _wait(self) -> int:
        """Return the exit status of a process that is about to end, or is made to."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ModelError(f"{self._title} failed in a process of its own: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        """Say why the process ended without an answer."""
        status = self._wait()
        self._complaints.seek(0)
        return last_words(status, self._complaints.read())


class OpenModel:
    """A model that is open in this process, timed as a worker times its own.

    Args:
        job: The shape of its images.
        backend: The model.

    Attributes:
        memory: Empty: what this process holds is not the model's alone.

    Raises:
        ModelError: The model failed.
    """

    def __init__(self, job: Job, backend: Backend) -> None:
        self.memory: dict[str, float] = {}
        images = _noise(job.batch, job.size, backend.bands)
        self._run: Callable[[], object] = lambda: backend.classify(images)
        self._run()

    def time(self, runs: int, *, idle: int = 0) -> list[float]:
        """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted."""
        return _run_times(self._run, runs=runs, idle=idle)


def main(arguments: list[str]) -> int:
    """Serve until standard input ends; return the exit status."""
    # What libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        _serve(json.loads(arguments[0]), sys.stdin, answer)
    except Exception as error:  # whatever a runtime raises is one model's failure, which the parent reports
        first_line = str(error).strip().partition("\n")[0]
        kind = "" if isinstance(error, SegshrinkError) and first_line else f"{type(error).__name__}: "
        answer({"error": f"{kind}{first_line}".rstrip(": ")})
        return 1
    return 0


def _serve(job: dict[str, Any], requests: TextIO, answer: Callable[[dict[str, Any]], None]) -> None:
    import numpy  # noqa: F401 - part of the baseline

    import_module(job["module"])
    baseline = peak_memory_mb()
    from segshrink.prediction import open_backend

    options = {name: job[name] for name in ("runtime", "precision", "threads", "trust")}
    with trusted_functions(*job["trusted"]):
        backend = open_backend(job["sources"], **options)
    images = _noise(job["batch"], job["size"], backend.bands)
    backend.classify(images)
    answer({"peak_memory_mb": peak_memory_mb(), "baseline_memory_mb": baseline})
    for line in requests:
        answer({"seconds": _run_times(lambda: backend.classify(images), **json.loads(line))})


def _noise(batch: int, size: int, bands: int) -> Any:
    """Return the same raw pixels (batch, size, size, bands), uint8, at every call."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, size, size, bands), dtype=np.uint8)


def _run_times(run: Callable[[], object], *, runs: int, idle: int) -> list[float]:
    """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted."""
    for _ in range(idle):
        run()
    moments = [time.perf_counter()]
    for _ in range(runs):
        run()
        moments.append(time.perf_counter())
    return [end - start for start, end in pairwise(moments)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
