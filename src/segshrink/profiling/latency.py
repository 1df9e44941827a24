"""Timing several models beside each other, so that a machine's drift is no model's advantage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from segshrink.errors import ConfigError, ModelError
from segshrink.machine import describe_machine
from segshrink.profiling.jobs import Job, Measurement
from segshrink.profiling.load import Load, LoadWatch
from segshrink.profiling.workers import OpenModel, Worker

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


class Timed(Protocol):
    """What can be asked to time itself: a worker, or a model that is open in this process."""

    def time(self, runs: int, *, idle: int = 0) -> list[float]:
        """Return the seconds of ``runs`` runs, after ``idle`` runs that aren't counted."""
        ...


@dataclass(frozen=True)
class Measured:
    """All jobs' measurements, in the order of the jobs, and how busy others kept the machine meanwhile."""

    measurements: list[Measurement]
    load: Load


def measure(
    jobs: Sequence[Job],
    *,
    runs: int = 20,
    rounds: int = 5,
    seconds: float = JOB_SECONDS,
    repeat: bool = False,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure latency and memory of every job; see ``measure_with_load``."""
    return measure_with_load(
        jobs, runs=runs, rounds=rounds, seconds=seconds, repeat=repeat, progress=progress
    ).measurements


def measure_with_load(
    jobs: Sequence[Job],
    *,
    runs: int = 20,
    rounds: int = 5,
    seconds: float = JOB_SECONDS,
    repeat: bool = False,
    progress: Progress | None = None,
) -> Measured:
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
    measured = _measure_all(jobs, runs=runs, rounds=rounds, seconds=seconds, progress=progress)
    if not (repeat and measured.load.busy):
        return measured
    repeated = _measure_all(jobs, runs=runs, rounds=rounds, seconds=seconds, progress=progress)
    return min((measured, repeated), key=lambda one: one.load.share or 0.0)


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
    workers: Sequence[Timed],
    *,
    runs: int,
    rounds: int,
    seconds: float = JOB_SECONDS,
    on_turn: Callable[[int], None] | None = None,
) -> list[list[list[float]] | str]:
    """Let workers time themselves in turns.

    Args:
        workers: Warm ones.
        runs: Runs of each over all rounds.
        rounds: Turns of each.
        seconds: One that has run so long gets no further turn.
        on_turn: Called with a worker's index before its turn.

    Returns:
        For each worker the seconds of its runs, round by round; or the sentence of the error that ended it.
    """
    results: list[list[list[float]] | str] = [[] for _ in workers]
    plans: dict[int, tuple[int, int]] = {}
    spent = [0.0] * len(workers)
    for number, index in turns(len(workers), rounds):
        found = results[index]
        if on_turn is not None:
            on_turn(index)
        if isinstance(found, str) or (found and spent[index] >= seconds):
            continue
        try:
            if index not in plans:
                spent[index], last = _warm_up(workers[index])
                plans[index] = _plan(last, runs=runs, rounds=rounds, seconds=seconds)
            most, idle = plans[index]
            share = (number + 1) * runs // rounds - number * runs // rounds
            found.append(workers[index].time(min(share, most), idle=idle))
            spent[index] += sum(found[-1])
        except ModelError as error:
            results[index] = str(error)
    return results


def _measure_all(jobs: Sequence[Job], *, runs: int, rounds: int, seconds: float, progress: Progress | None) -> Measured:
    """Measure every job, cohort after cohort."""
    steps = _Steps(len(jobs) * (1 + rounds), progress)
    results: list[Measurement] = []
    load = Load()
    while len(results) < len(jobs):
        measured = _measure_cohort(jobs[len(results) :], runs=runs, rounds=rounds, seconds=seconds, steps=steps)
        results += measured.measurements
        load += measured.load
    steps.next("")
    return Measured(results, load)


def latency(seconds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return ``median``, ``p95``, ``low``, ``high`` (of the rounds' medians) in ms, and ``runs``, of rounds of runs."""
    everything = 1000 * np.concatenate([np.asarray(one) for one in seconds])
    medians = [1000 * float(np.median(one)) for one in seconds]
    values = {
        "median": float(np.median(everything)),
        "p95": float(np.percentile(everything, 95)),
        "low": min(medians),
        "high": max(medians),
    }
    return {**{name: round(value, 4) for name, value in values.items()}, "runs": len(everything)}


def _measure_cohort(jobs: Sequence[Job], *, runs: int, rounds: int, seconds: float, steps: _Steps) -> Measured:
    """Measure as many of the first jobs as fit in memory together, at least one."""
    allowed = MEMORY_SHARE * 1000 * (describe_machine()["memory_gb"] or 8.0)
    opened: list[Worker | OpenModel | str] = []
    with ExitStack() as stack:
        held = 0.0
        for job in jobs:
            steps.next(f"open {job.short_title}")
            try:
                worker = stack.enter_context(Worker(job)) if job.backend is None else OpenModel(job)
            except ModelError as error:
                opened.append(str(error))
                steps.skip(rounds)
                continue
            opened.append(worker)
            held += worker.memory.get("peak_memory_mb", 0.0)
            if held > allowed:
                break
        workers = [worker for worker in opened if not isinstance(worker, str)]
        watch = LoadWatch(worker.pid for worker in workers if isinstance(worker, Worker))
        timed = interleave(
            workers,
            runs=runs,
            rounds=rounds,
            seconds=seconds,
            on_turn=lambda index: steps.next(workers[index].job.short_title),
        )
        load = watch.stop()
    found = iter(timed)
    measured = [
        replace(_measurement(job, one, "" if isinstance(one, str) else next(found)), load=load)
        for job, one in zip(jobs, opened, strict=False)  # the jobs that are left wait for the next cohort
    ]
    return Measured(measured, load)


def _measurement(job: Job, worker: Worker | OpenModel | str, timed: list[list[float]] | str) -> Measurement:
    if isinstance(worker, str):
        return Measurement(job, error=worker)
    peak, baseline = (worker.memory.get(f"{which}_memory_mb") for which in ("peak", "baseline"))
    if isinstance(timed, str):
        return Measurement(job, None, peak, baseline, timed)
    return Measurement(job, latency(timed), peak, baseline)


def _warm_up(worker: Timed) -> tuple[float, float]:
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


class _Steps:
    """Counts turns for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._done, self._progress = total, 0, progress

    def next(self, note: str) -> None:
        """Say what begins now; what began before is done."""
        if self._progress is not None:
            self._progress(self._done, self._total, note)
        self._done += 1

    def skip(self, steps: int) -> None:
        """Count steps that won't be taken."""
        self._done += steps
