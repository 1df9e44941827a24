"""The one measurement of latency and memory: each model in a process of its own, all of them in turns.

A machine's drift is then no model's advantage. Imports nothing heavy: files of other runtimes are measured without
torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segshrink.errors import ConfigError, ModelError, UsageError, nearest
from segshrink.machine import default_threads, describe_machine
from segshrink.prediction.backends import PRECISIONS
from segshrink.profiling.load import Load, LoadWatch
from segshrink.profiling.worker import OpenModel, Worker

if TYPE_CHECKING:
    from segshrink.prediction import Backend


class Runtime(NamedTuple):
    """The module that a runtime is imported as, the extra that brings it (None: always there), its name in tables."""

    module: str
    extra: str | None
    title: str


RUNTIMES = {
    "torch": Runtime("torch", "train", "PyTorch"),
    "torch-compile": Runtime("torch", "train", "PyTorch compiled"),
    "onnxruntime": Runtime("onnxruntime", None, "ONNX Runtime"),
    "openvino": Runtime("openvino", "openvino", "OpenVINO"),
    "litert": Runtime("ai_edge_litert", "tflite", "LiteRT"),
}
# Runtimes that compute in bf16 when left to themselves on a processor that can.
OWN_PRECISION = ("torch", "torch-compile", "openvino")

# Runs before the first that counts; a slow model is warm after fewer.
WARM_UP = 5
WARM_UP_SECONDS = 2.0
# A job gets fewer runs than asked for when they would take longer than this, but one at least.
JOB_SECONDS = 60.0
# Share of the machine's memory that the workers of one cohort may hold.
MEMORY_SHARE = 0.4
# Other models' threads wait busily a while after their turn, and leave their data in the caches: runs within so many
# seconds of a turn's beginning aren't counted. One run that is longer than QUICK doesn't notice.
SETTLING = 0.15
QUICK = 1.0

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """One thing to measure: a file or folder on one runtime, with images of one shape.

    Attributes:
        source: What ``segshrink.prediction.open_backend`` takes: a model or run folder, or a file.
        runtime: One of ``RUNTIMES``.
        precision: "auto" leaves bf16 to the runtime, "32" computes in fp32, "bf16" insists.
        size: Side in pixels of the square images.
        batch: Images at once.
        threads: Threads of the runtime; by default as many as this process has cores, or ``OMP_NUM_THREADS`` if less.
        name: What progress bars call it; by default the source's name.
        backend: A model that is open already and is timed in this process, with its own threads; its memory isn't
            measured, and ``source`` only names it.
        trust: As ``open_backend`` takes it.
        others: Further models, whose mean with ``source`` is what is measured.

    Raises:
        ConfigError: The runtime or precision is unknown, or a number is below 1.
    """

    source: Path
    runtime: str
    precision: str = "auto"
    size: int = 512
    batch: int = 1
    threads: int | None = None
    name: str = ""
    backend: Backend | None = None
    trust: bool = False
    others: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        check_runtime(self.runtime)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision '{self.precision}' can't be measured; use one of {', '.join(PRECISIONS)}")
        if self.size < 1 or self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError(
                f"size {self.size}, batch {self.batch}, threads {self.threads}: each must be at least 1 to be measured"
            )

    @property
    def cores(self) -> int:
        """Threads it runs with."""
        return self.threads or default_threads()

    @property
    def module(self) -> str:
        """Name of the module that its runtime is imported as."""
        return RUNTIMES[self.runtime].module

    @property
    def title(self) -> str:
        """Source, runtime and shape, for errors."""
        images = f"{self.batch} image{'s' if self.batch > 1 else ''} of {self.size} × {self.size}"
        sources = f"the mean of {', '.join(map(str, (self.source, *self.others)))}" if self.others else self.source
        return f"{sources} on {runtime_title(self.runtime, self.precision)} ({images}, {threads_title(self.cores)})"

    @property
    def short_title(self) -> str:
        """Source and runtime, for a progress bar."""
        return f"{self.name or self.source.name} on {runtime_title(self.runtime, self.precision)}, batch {self.batch}"


@dataclass(frozen=True)
class Measurement:
    """What a job cost.

    Attributes:
        job: What was measured.
        latency_ms: "median" and "p95" in milliseconds of one batch, from raw pixels (N, H, W, bands) to class map
            (N, H, W), over "runs" timed runs; and "low" and "high", the smallest and largest median of a round, which
            tell how far the machine drifted. None when it failed.
        peak_memory_mb: Largest resident set, in 10^6 bytes, of a fresh process that opens the model and runs it once.
        baseline_memory_mb: The same process after importing the runtime and numpy.
        error: One sentence, when it failed.
        load: What other programs computed while it and those beside it were timed.
    """

    job: Job
    latency_ms: dict[str, float] | None = None
    peak_memory_mb: float | None = None
    baseline_memory_mb: float | None = None
    error: str | None = None
    load: Load = field(default_factory=Load)

    @property
    def throughput(self) -> float | None:
        """Megapixels per second (10^6, of one band or many alike) at the median."""
        images = self.images_per_second
        return None if images is None else images * self.job.size**2 / 1e6

    @property
    def images_per_second(self) -> float | None:
        """Images per second at the median."""
        return None if self.latency_ms is None else 1000 * self.job.batch / self.latency_ms["median"]

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, JSON-able; what was measured *with* is the job's."""
        throughput, images = self.throughput, self.images_per_second
        return {
            "batch": self.job.batch,
            "threads": self.job.cores,
            "latency_ms": self.latency_ms,
            "throughput_mpixel_s": None if throughput is None else round(throughput, 3),
            "images_s": None if images is None else round(images, 3),
            "peak_memory_mb": self.peak_memory_mb,
            "baseline_memory_mb": self.baseline_memory_mb,
            "load": self.load.to_dict(),
            "error": self.error,
        }


def measure(
    jobs: Sequence[Job],
    *,
    runs: int = 20,
    rounds: int = 5,
    seconds: float = JOB_SECONDS,
    repeat: bool = False,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure latency and memory of every job.

    Every job has a process of its own, which opens the model, runs it once (its peak memory), and stays warm. Then the
    processes take turns, one computing at a time: in every round each times a few runs, forwards in one round and
    backwards in the next, so that a machine which grows hot or slow treats all alike. Jobs whose processes don't fit in
    memory together are measured in cohorts, one after the other, in the order of the jobs.

    What is timed is ``classify``: raw pixels (N, H, W, bands) in, class map (N, H, W) out, which is what is deployed.
    Every latency that this program gives was measured here.

    Args:
        jobs: What to measure.
        runs: Timed runs of a job over all rounds; fewer for a job that would take more than ``seconds``.
        rounds: Turns of every job.
        seconds: What the runs of one job may take, warm-up included; a turn that has begun is ended.
        repeat: Where other programs kept the machine busy, measure once more and keep the quieter of the two.
        progress: Called with (turns done, turns in all, what is being done); opening a model counts as one turn.

    Returns:
        One measurement for each job, in order; one that failed has an ``error`` and doesn't keep the others from going
        on.

    Raises:
        ConfigError: ``runs`` is less than ``rounds``, or ``rounds`` less than 1.
    """
    check_runs(runs, rounds)
    attempts: list[list[Measurement]] = []
    while not attempts or (repeat and len(attempts) < 2 and total_load(attempts[0]).busy):
        attempts.append(_measure_all(jobs, runs=runs, rounds=rounds, seconds=seconds, progress=progress))
    return min(attempts, key=lambda measurements: total_load(measurements).share or 0.0)


def total_load(measurements: Iterable[Measurement]) -> Load:
    """Return the load over all cohorts of measurements; those of one cohort share theirs."""
    return sum(dict.fromkeys(measurement.load for measurement in measurements), Load())


def check_runs(runs: int, rounds: int) -> None:
    """Raise ``ConfigError`` unless there is a round, and a run for each."""
    if rounds < 1 or runs < rounds:
        raise ConfigError(f"{runs} runs in {rounds} rounds: give at least 1 round, and a run for each")


def turns(count: int, rounds: int) -> Iterator[tuple[int, int]]:
    """Yield (round, index) in the order in which ``count`` jobs take turns: forwards, backwards, forwards, ..."""
    for number in range(rounds):
        order = range(count) if number % 2 == 0 else reversed(range(count))
        yield from ((number, index) for index in order)


def interleave(
    workers: Sequence[Worker | OpenModel | str],
    *,
    runs: int,
    rounds: int,
    seconds: float = JOB_SECONDS,
    on_turn: Callable[[int], None] | None = None,
) -> list[list[list[float]] | str]:
    """Let workers time themselves in turns.

    Args:
        workers: Open ones; for one that couldn't be opened, the sentence of its error.
        runs: Runs of each over all rounds.
        rounds: Turns of each.
        seconds: One that has run so long gets no further turn.
        on_turn: Called with a worker's index before its turn.

    Returns:
        For each worker the seconds of its runs, round by round; or the sentence of the error that ended it.
    """
    results: list[list[list[float]] | str] = [worker if isinstance(worker, str) else [] for worker in workers]
    plans: dict[int, tuple[int, int]] = {}
    spent = [0.0] * len(workers)
    for number, index in turns(len(workers), rounds):
        worker, result = workers[index], results[index]
        if on_turn is not None:
            on_turn(index)
        if isinstance(worker, str) or isinstance(result, str) or (result and spent[index] >= seconds):
            continue
        try:
            if index not in plans:
                spent[index], last = _warm_up(worker)
                plans[index] = _plan(last, runs=runs, rounds=rounds, seconds=seconds)
            most, idle = plans[index]
            share = (number + 1) * runs // rounds - number * runs // rounds
            result.append(worker.time(min(share, most), idle=idle))
            spent[index] += sum(result[-1])
        except ModelError as error:
            results[index] = str(error)
    return results


def latency(seconds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return ``median``, ``p95``, ``low``, ``high`` (of the rounds' medians) in ms, and ``runs``, of rounds of runs."""
    rounds_ms = [1000 * np.asarray(round_seconds) for round_seconds in seconds]
    runs_ms = np.concatenate(rounds_ms)
    medians = [float(np.median(round_ms)) for round_ms in rounds_ms]
    values = {
        "median": float(np.median(runs_ms)),
        "p95": float(np.percentile(runs_ms, 95)),
        "low": min(medians),
        "high": max(medians),
    }
    return {**{name: round(value, 4) for name, value in values.items()}, "runs": len(runs_ms)}


def check_runtime(runtime: str) -> None:
    """Raise ``UsageError`` for an unknown runtime."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime '{runtime}' is unknown{nearest(runtime, RUNTIMES)}")


def runtime_title(runtime: str, precision: str = "auto") -> str:
    """Return a runtime as tables call it, such as "OpenVINO" or "OpenVINO fp32"."""
    suffixes = {"32": " fp32", "bf16": " bf16"} if runtime in OWN_PRECISION else {}
    return RUNTIMES[runtime].title + suffixes.get(precision, "")


def threads_title(threads: int) -> str:
    """Return "1 thread" or "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _measure_all(
    jobs: Sequence[Job], *, runs: int, rounds: int, seconds: float, progress: Progress | None
) -> list[Measurement]:
    """Measure cohort after cohort; each says what begins, when what began before is done."""
    total, step = len(jobs) * (1 + rounds), itertools.count()

    def tell(note: str) -> None:
        if progress is not None:
            progress(next(step), total, note)

    measurements: list[Measurement] = []
    while left := jobs[len(measurements) :]:
        measurements += _measure_cohort(left, runs=runs, rounds=rounds, seconds=seconds, tell=tell)
    tell("")
    return measurements


def _measure_cohort(
    jobs: Sequence[Job], *, runs: int, rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Measurement]:
    """Measure as many of the first jobs as fit in memory together, at least one."""
    allowed = MEMORY_SHARE * 1000 * (describe_machine()["memory_gb"] or 8.0)
    workers: list[Worker | OpenModel | str] = []
    with ExitStack() as stack:
        held = 0.0
        for job in jobs:
            tell(f"open {job.short_title}")
            try:
                worker = stack.enter_context(Worker(job)) if job.backend is None else OpenModel(job, job.backend)
            except ModelError as error:
                workers.append(str(error))
                continue
            workers.append(worker)
            held += worker.memory.get("peak_memory_mb", 0.0)
            if held > allowed:
                break
        watch = LoadWatch(worker.pid for worker in workers if isinstance(worker, Worker))
        timed = interleave(
            workers,
            runs=runs,
            rounds=rounds,
            seconds=seconds,
            on_turn=lambda index: tell(jobs[index].short_title),
        )
        load = watch.stop()
    return [
        _measurement(job, {} if isinstance(worker, str) else worker.memory, result, load)
        for job, worker, result in zip(jobs, workers, timed, strict=False)  # other jobs wait for the next cohort
    ]


def _measurement(job: Job, memory: dict[str, float], timed: list[list[float]] | str, load: Load) -> Measurement:
    peak, baseline = (memory.get(f"{moment}_memory_mb") for moment in ("peak", "baseline"))
    if isinstance(timed, str):
        return Measurement(job, None, peak, baseline, timed, load)
    return Measurement(job, latency(timed), peak, baseline, None, load)


def _warm_up(worker: Worker | OpenModel) -> tuple[float, float]:
    """Run until warm; return the seconds of all runs and of the last."""
    spent = last = 0.0
    for _ in range(WARM_UP):
        last = worker.time(1)[0]
        spent += last
        if spent > WARM_UP_SECONDS:
            break
    return spent, last


def _plan(run: float, *, runs: int, rounds: int, seconds: float) -> tuple[int, int]:
    """Return the most runs of a turn, and those before them that aren't counted, for one of ``run`` seconds a run."""
    affordable = int(seconds / rounds / max(run, 1e-9))
    idle = math.ceil(SETTLING / max(run, 1e-4)) if run < QUICK else 0
    return max(1, min(-(-runs // rounds), affordable)), idle
