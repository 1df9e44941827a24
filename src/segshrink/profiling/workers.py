"""The process that measures one job, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from segshrink.errors import ModelError
from segshrink.machine import last_words
from segshrink.profiling.jobs import Job, runtime_module
from segshrink.profiling.worker import noise, run_times

if TYPE_CHECKING:
    from segshrink.prediction import Backend

PROGRAM = Path(__file__).with_name("worker.py")
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
        self.job = job
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        request = json.dumps({**job.to_dict(), "module": runtime_module(job.runtime)})
        try:
            # -P: a file beside the program must not stand in for one of Python's own modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), request],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                encoding="utf-8",
                env=_environment(job),
            )
        except OSError as error:
            self._complaints.close()
            raise ModelError(f"{job.title} can't be measured: no process could be started ({error})") from error
        self._requests = cast(TextIO, self._process.stdin)
        self._answers = cast(TextIO, self._process.stdout)
        self.pid: int = self._process.pid
        try:
            self.memory: dict[str, float] = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
            raise ModelError(f"{self.job.title} failed in a process of its own: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        """Say why the process ended without an answer."""
        status = self._wait()
        self._complaints.seek(0)
        return last_words(status, self._complaints.read())


class OpenModel:
    """A model that is open in this process, timed as a worker times its own.

    Args:
        job: What it measures; it has a ``backend``.

    Attributes:
        memory: Empty: what this process holds is not the model's alone.

    Raises:
        ModelError: The model failed.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.memory: dict[str, float] = {}
        self._backend = cast("Backend", job.backend)
        self._images = noise(job.batch, job.size, self._backend.bands)
        self._backend.classify(self._images)

    def time(self, runs: int, *, idle: int = 0) -> list[float]:
        """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted."""
        return run_times(lambda: self._backend.classify(self._images), runs=runs, idle=idle)


def _environment(job: Job) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.cores)), "CUDA_VISIBLE_DEVICES": ""}
