"""Models beside each other on every runtime: what they cost, how fast they are here, and how good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.config import DatasetDescription, load_dataset
from segshrink.errors import ConfigError, DataError, FileError, MissingExtraError, ModelError
from segshrink.files import scratch_folder
from segshrink.machine import default_threads
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling.parameters_and_macs import CostCounter, Costs
from segshrink.profiling.jobs import Job, Measurement
from segshrink.profiling.latency import Progress, check_runs, measure_with_load
from segshrink.profiling.plan import Entry, plan
from segshrink.profiling.results import BenchmarkResult, Row, Score

if TYPE_CHECKING:
    from segshrink.data import Dataset

# What one model's failure looks like; the others go on.
_FAILURES = (ModelError, FileError, MissingExtraError)


def benchmark(
    sources: Sequence[str | Path],
    *,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] = ("auto",),
    data: DatasetDescription | str | Path | None = None,
    split: str = "val",
    size: int = 512,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] | None = None,
    runs: int = 20,
    rounds: int = 5,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Measure models on this machine's CPU.

    Folders are run in PyTorch, and exported to a temporary folder for ONNX Runtime and OpenVINO.

    Args:
        sources: Model folders, run folders, .onnx, .xml and .tflite files.
        runtimes: "torch", "torch-compile", "onnxruntime", "openvino", "litert"; by default all that suit a source and
            are installed.
        precisions: For PyTorch and OpenVINO: "auto" leaves bf16 to them, "32", "bf16"; a row for each.
        data: Data set, or its description's file, for mean IoU; every row is scored through its own runtime.
        split: Part of the data set.
        size: Side in pixels of the square images.
        batches: Images at once.
        threads: Numbers of threads; by default 1 and as many as this process has cores, or ``OMP_NUM_THREADS`` if less.
        runs: Timed runs of each row and shape, over all rounds.
        rounds: Turns of each.
        progress: Called with (steps done, steps in all, what is being done).

    Returns:
        The rows, with the errors of those that failed.

    Raises:
        ConfigError: A number, runtime or precision makes no sense, or the data set's description is wrong.
        FileError: Nothing is at a source.
        ModelError: A source is no model, or all failed.
        DataError: The data set contradicts its description.
        MissingExtraError: No runtime is installed.
    """
    check_runs(runs, rounds)
    shapes = [(batch, count) for batch in dict.fromkeys(batches) for count in _threads(threads)]
    for batch, count in shapes:
        Job(Path(), "onnxruntime", size=size, batch=batch, threads=count)  # refuses numbers that make no sense
    entries, notes = plan(sources, runtimes=runtimes, precisions=precisions)
    dataset = None if data is None else open_for_scores(data, split)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    with scratch_folder() as scratch:
        work = _Work(entries, dataset, split, progress, turns=len(shapes) * (1 + rounds))
        work.count(CostCounter(scratch, size=size))
        work.score()
        jobs = [
            Job(costs.file, entry.runtime, entry.precision, size, batch, count)
            for batch, count in shapes  # those of one shape are measured beside each other
            for entry, costs in work.counted
        ]
        measured = measure_with_load(jobs, runs=runs, rounds=rounds, progress=work.turn)
        work.finish()
    if measured.load.sentence and jobs:
        notes.append(measured.load.sentence)
    rows = work.rows(measured.measurements)
    if not any(one.latency_ms for row in rows for one in row.measurements):
        raise ModelError(next(error for row in rows for error in row.errors))
    return BenchmarkResult(
        date=date,
        size=size,
        runs=runs,
        rounds=rounds,
        load=measured.load,
        data=dataset.description.name if dataset else None,
        split=split if dataset else None,
        leaking=bool(dataset and dataset.leaking),
        notes=tuple(notes),
        rows=tuple(rows),
    )


class _Work:
    """The entries on their way to rows: counted, scored, measured."""

    def __init__(
        self, entries: Sequence[Entry], dataset: Dataset | None, split: str, progress: Progress | None, *, turns: int
    ) -> None:
        self._entries = entries
        self._dataset, self._split = dataset, split
        self._progress = progress
        self._before = len(entries) * (2 if dataset else 1)
        self._total = self._before + len(entries) * turns
        self._costs: dict[Entry, Costs] = {}
        self._scores: dict[Entry, Score] = {}
        self._errors: dict[Entry, list[str]] = {entry: [] for entry in entries}

    @property
    def counted(self) -> list[tuple[Entry, Costs]]:
        """The entries that can be run."""
        return list(self._costs.items())

    def count(self, counter: CostCounter) -> None:
        """Load, count and export every entry."""
        for done, entry in enumerate(self._entries):
            self._tell(done, f"prepare {entry.title}")
            try:
                self._costs[entry] = counter.costs(entry)
            except _FAILURES as error:
                self._errors[entry].append(f"{entry.title}: {error}")

    def score(self) -> None:
        """Score every entry that can be run."""
        if self._dataset is None:
            return
        from segshrink.evaluation import evaluate

        for done, (entry, costs) in enumerate(self.counted):
            try:
                if costs.file.is_file():  # a runtime that ends its process must not end this one
                    check_isolated(costs.file, runtime=entry.runtime, precision=entry.precision)
                evaluation = evaluate(
                    costs.file,
                    self._dataset,
                    self._split,
                    runtime=entry.runtime,
                    precision=entry.precision,
                    progress=partial(self._tell_scenes, len(self._entries) + done, entry.title),
                )
                self._scores[entry] = Score.of(evaluation)
            except (*_FAILURES, DataError) as error:
                self._errors[entry].append(f"{entry.title} has no mIoU: {error}")

    def turn(self, done: int, _: int, note: str) -> None:
        """Pass on the progress of the measuring."""
        self._tell(self._before + done, note)

    def finish(self) -> None:
        """Say that nothing is left to do."""
        self._tell(self._total, "")

    def rows(self, measurements: Sequence[Measurement]) -> list[Row]:
        """Return a row for each entry; measurements are those of ``counted``, shape after shape."""
        count = len(self._costs)
        found = {entry: tuple(measurements[place::count]) for place, entry in enumerate(self._costs)}
        return [self._row(entry, found.get(entry, ())) for entry in self._entries]

    def _row(self, entry: Entry, measurements: tuple[Measurement, ...]) -> Row:
        costs = self._costs.get(entry)
        # An exported file has a name that nobody gave and that is gone when its error is read.
        failed = [one.error.replace(str(costs.file), str(entry.source)) for one in measurements if costs and one.error]
        return Row(entry, costs, self._scores.get(entry), measurements, (*self._errors[entry], *failed))

    def _tell_scenes(self, step: int, title: str, done: int, total: int) -> None:
        self._tell(step, f"evaluate {title} ({done}/{total} images)")

    def _tell(self, done: int, note: str) -> None:
        if self._progress is not None:
            self._progress(done, self._total, note)


def open_for_scores(data: DatasetDescription | str | Path, split: str) -> Dataset:
    """Open a data set whose split is to judge.

    Raises:
        ConfigError: The split is empty.
    """
    from segshrink.data import open_dataset

    dataset = open_dataset(data if isinstance(data, DatasetDescription) else load_dataset(Path(data)))
    if not getattr(dataset, split):
        raise ConfigError(
            f"data set '{dataset.description.name}' has no images in its {split} split; choose another split"
        )
    return dataset


def _threads(wanted: Sequence[int] | None) -> list[int]:
    return list(dict.fromkeys(wanted or (1, default_threads())))
