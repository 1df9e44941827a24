"""Models beside each other on every runtime: what they cost, how fast they are here, and how good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segshrink.config import DatasetDescription, load_dataset
from segshrink.errors import (
    ConfigError,
    DataError,
    FileError,
    MissingExtraError,
    ModelError,
    UsageError,
    install_command,
    nearest,
)
from segshrink.files import scratch_folder
from segshrink.machine import default_threads
from segshrink.model_file import ModelFile, runs_in_torch
from segshrink.prediction.backends import PRECISIONS
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling.latency import (
    OWN_PRECISION,
    RUNTIMES,
    Job,
    Progress,
    check_runs,
    check_runtime,
    measure,
    total_load,
)
from segshrink.profiling.parameters_and_macs import count_file_parameters, count_macs
from segshrink.profiling.results import BenchmarkResult, Row
from segshrink.run_folder import RunFolder

if TYPE_CHECKING:
    from segshrink.data import Dataset
    from segshrink.models import SegmentationModel

# What a model of torch is exported to, so that other runtimes can be measured with it: runtime → suffix of the file.
EXPORTED = {"onnxruntime": ".onnx", "openvino": ".xml"}
# What one model's failure looks like; the others go on.
_FAILURES = (ModelError, FileError, MissingExtraError)

# Called with (steps done, what is being done).
_Tell = Callable[[int, str], None]


def benchmark(
    sources: Sequence[str | Path],
    *,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[str] = ("auto",),
    data: Dataset | DatasetDescription | str | Path | None = None,
    split: str = "val",
    size: int = 512,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] | None = None,
    runs: int = 20,
    rounds: int = 5,
    average: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Measure models on this machine's CPU.

    Folders and Keras files are run in PyTorch, and exported to a temporary folder for ONNX Runtime and OpenVINO.

    Args:
        sources: Model folders, run folders, banks, .onnx, .xml, .tflite and Keras files. Of a bank each teacher is
            measured, and their mean.
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
        average: Also measure the mean of all models' probabilities as one model, on runtimes that suit all.
        trust: Let code run that the models name; see ``load_model``.
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
    rows, notes = plan(sources, runtimes=runtimes, precisions=precisions, average=average)
    dataset = None if data is None else open_for_scores(data, split)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    before = len(rows) * (1 if dataset is None else 2)
    total = before + len(rows) * len(shapes) * (1 + rounds)

    def tell(done: int, note: str) -> None:
        if progress is not None:
            progress(done, total, note)

    with scratch_folder() as scratch:
        _prepare(rows, scratch, size=size, trust=trust, tell=tell)
        runnable = [(row, row.file) for row in rows if row.file is not None]
        if dataset is not None:
            _score(runnable, dataset, split, trust=trust, before=len(rows), tell=tell)
        jobs = [
            Job(file, row.runtime, row.precision, size, batch, count, trust=trust, others=_others(row))
            for batch, count in shapes  # those of one shape are measured beside each other
            for row, file in runnable
        ]
        measurements = measure(jobs, runs=runs, rounds=rounds, progress=lambda done, _, note: tell(before + done, note))
        tell(total, "")
    for place, (row, _) in enumerate(runnable):
        row.measurements = measurements[place :: len(runnable)]
        for error in (measurement.error for measurement in row.measurements if measurement.error):
            # An exported file has a name that nobody gave and that is gone when its error is read.
            for model in row.models:
                error = error.replace(str(model.file), str(model.source))
            row.errors.append(error)
    if not any(measurement.latency_ms for measurement in measurements):
        raise ModelError(next(error for row in rows for error in row.errors))
    load = total_load(measurements)
    return BenchmarkResult(
        date=date,
        size=size,
        runs=runs,
        rounds=rounds,
        load=load,
        data=dataset.description.name if dataset else None,
        split=split if dataset else None,
        leaking=bool(dataset and dataset.leaking),
        notes=(*notes, load.sentence) if load.sentence else tuple(notes),
        rows=tuple(rows),
    )


def plan(
    sources: Sequence[str | Path],
    *,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str],
    average: bool = False,
) -> tuple[list[Row], list[str]]:
    """Combine sources, runtimes and precisions.

    Args:
        sources: Model and run folders, banks, .onnx, .xml, .tflite and Keras files.
        runtimes: Those to measure; by default all that suit a source.
        precisions: For runtimes that may compute in bf16; the others have one row.
        average: Whether the mean of all sources has rows, too, as that of a bank's teachers has.

    Returns:
        The rows, source by source and then the means, and sentences about what was left out.

    Raises:
        ConfigError: There is no source, or a runtime or precision is unknown.
        FileError: Nothing is at a source.
        ModelError: A source is no model, or nothing is left to measure.
        MissingExtraError: Nothing is left because no runtime is installed.
    """
    paths, means = _models(_checked(sources, runtimes, precisions), average=average)
    rows: list[Row] = []
    notes: list[str] = []
    missing: dict[str, None] = {}
    for name, path in zip(_names(paths), paths, strict=True):
        model_file = ModelFile.find(path)
        suitable = (*model_file.runtimes, *EXPORTED) if model_file.is_torch else model_file.runtimes
        for runtime in runtimes or suitable:
            if runtime not in suitable:
                titles = [other.title for key, other in RUNTIMES.items() if key in suitable]
                notes.append(f"{path} can't run in {RUNTIMES[runtime].title}, but in {' and '.join(titles)}")
            elif find_spec(RUNTIMES[runtime].module) is None:
                missing.setdefault(runtime)
            elif model_file.is_torch and find_spec("torch") is None:
                missing.setdefault("torch")
            else:
                choices = precisions if runtime in OWN_PRECISION else ("auto",)
                rows += [Row(name, path, runtime, precision) for precision in dict.fromkeys(choices)]
    if not rows and missing:
        runtime = next(iter(missing))
        raise MissingExtraError(f"measuring with {RUNTIMES[runtime].title}", RUNTIMES[runtime].extra or "train")
    if not rows:
        raise ModelError(f"nothing can be measured: {'; '.join(notes)}; choose other runtimes or export the model")
    for name, members in means.items():
        of_mean = list(_mean_rows(name, members, rows))
        if not of_mean:
            notes.append(f"no runtime was measured with all models of {name}, so their mean wasn't")
        rows += of_mean
    return rows, notes + [_absent(runtime) for runtime in missing]


def _models(paths: Sequence[Path], *, average: bool) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return every single model, and by name those of which the mean is to be measured."""
    banks = {path: members for path in paths if (members := RunFolder(path).members)}
    models = list(dict.fromkeys(model for path in paths for model in banks.get(path, [path])))
    means = {path.resolve().name: members for path, members in banks.items()}
    if average and len(models) < 2:
        raise UsageError("an average is of two models at least; name some more, or a bank")
    if average and models not in means.values():
        means["average"] = models
    return models, means


def _mean_rows(name: str, members: Sequence[Path], rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row of the mean of some models for each runtime and precision that all of them have."""
    for runtime, precision in dict.fromkeys((row.runtime, row.precision) for row in rows if not row.parts):
        alike = [row for row in rows if (row.runtime, row.precision) == (runtime, precision) and not row.parts]
        parts = tuple(row for row in alike if row.source in members)
        if len(parts) == len(members):
            yield Row(name, Path(name), runtime, precision, parts=parts)


def _others(row: Row) -> tuple[Path, ...]:
    return tuple(part.file for part in row.parts[1:] if part.file is not None)


def open_for_scores(data: Dataset | DatasetDescription | str | Path, split: str) -> Dataset:
    """Open a data set whose split is to judge.

    Raises:
        ConfigError: The split is empty.
    """
    from segshrink.data import Dataset, open_dataset

    description = load_dataset(Path(data)) if isinstance(data, str | Path) else data
    dataset = description if isinstance(description, Dataset) else open_dataset(description)
    if not getattr(dataset, split):
        raise ConfigError(
            f"data set '{dataset.description.name}' has no images in its {split} split; choose another split"
        )
    return dataset


def _prepare(rows: Sequence[Row], scratch: Path, *, size: int, trust: bool, tell: _Tell) -> None:
    """Load, count and export the models; each model of torch is loaded once and exported once for each runtime."""

    @cache
    def loaded(source: Path) -> tuple[SegmentationModel, int, int]:
        from segshrink.models import count_parameters, load_model

        model = load_model(source, trust=trust).eval()
        return model, count_parameters(model), count_macs(model, size=size)

    @cache
    def exported(source: Path, runtime: str) -> Path:
        from segshrink.export import export_onnx, export_openvino

        folder = scratch / str(len(list(scratch.iterdir())))
        folder.mkdir()
        file = folder / f"{source.resolve().name}{EXPORTED[runtime]}"
        return (export_openvino if runtime == "openvino" else export_onnx)(loaded(source)[0], file)

    for done, row in enumerate(rows):
        tell(done, f"prepare {row.title}")
        if row.parts:
            _combine(row)
            continue
        try:
            file = row.source
            if not ModelFile.find(row.source).is_torch:
                row.parameters = count_file_parameters(row.source)
            else:
                _, row.parameters, row.macs = loaded(row.source)
                if row.runtime in EXPORTED:
                    file = exported(row.source, row.runtime)
            row.file_bytes = ModelFile.find(file).size_bytes
            row.file = file
        except _FAILURES as error:
            row.errors.append(f"{row.title}: {error}")


def _combine(row: Row) -> None:
    """Fill in what the mean of models costs: as much as all of them."""
    for name in ("parameters", "macs", "file_bytes"):
        counts = [getattr(part, name) for part in row.parts]
        setattr(row, name, None if None in counts else sum(counts))
    missing = [part.title for part in row.parts if part.file is None]
    if missing:
        row.errors.append(f"{row.title} can't be measured without {', '.join(missing)}")
    else:
        row.file = row.parts[0].file


def _score(
    rows: Sequence[tuple[Row, Path]], dataset: Dataset, split: str, *, trust: bool, before: int, tell: _Tell
) -> None:
    """Score each model through its own runtime; ``before`` steps are done."""
    from segshrink.evaluation import evaluate

    for done, (row, _) in enumerate(rows, start=before):

        def tell_scenes(scene: int, scenes: int, *, step: int = done, title: str = row.title) -> None:
            tell(step, f"evaluate {title} ({scene}/{scenes} images)")

        try:
            models: list[SegmentationModel | Path] = []
            for file in (model.file for model in row.models if model.file is not None):
                if runs_in_torch(file):
                    from segshrink.models import load_model

                    models.append(load_model(file, trust=trust))
                    continue
                if file.is_file():  # a runtime that ends its process must not end this one
                    check_isolated(file, runtime=row.runtime, precision=row.precision)
                models.append(file)
            evaluation = evaluate(
                models if row.parts else models[0],
                dataset,
                split,
                runtime=row.runtime,
                precision=row.precision,
                progress=tell_scenes,
            )
            row.mean_iou = evaluation.scores.mean_iou
            row.mean_iou_interval = None if evaluation.interval is None else evaluation.interval.mean_iou
        except (*_FAILURES, DataError) as error:
            row.errors.append(f"{row.title} has no mIoU: {error}")


def _checked(sources: Sequence[str | Path], runtimes: Sequence[str] | None, precisions: Sequence[str]) -> list[Path]:
    if not sources:
        raise ConfigError("there is nothing to measure; name a model folder, a run folder or an exported file")
    for runtime in runtimes or ():
        check_runtime(runtime)
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"precision '{precision}' is unknown{nearest(precision, PRECISIONS)}")
    return list(dict.fromkeys(Path(source) for source in sources))


def _names(paths: Sequence[Path]) -> list[str]:
    """Return short names, longer ones where those would be the same."""
    short = [ModelFile(path).name for path in paths]
    longer = [path.name if short.count(name) > 1 else name for name, path in zip(short, paths, strict=True)]
    return [str(path) if longer.count(name) > 1 else name for name, path in zip(longer, paths, strict=True)]


def _threads(threads: Sequence[int] | None) -> list[int]:
    return list(dict.fromkeys(threads or (1, default_threads())))


def _absent(runtime: str) -> str:
    module, extra, title = RUNTIMES[runtime]
    how = install_command(extra) if extra else f"pip install {module}"
    return f"{title} is not installed, so it was not measured: {how}"
