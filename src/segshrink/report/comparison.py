"""The comparison: the table's rows, each with its difference from or ratio to the teacher, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segshrink import formatting
from segshrink.report.runs import Run, comparable, first, same_machine, timed_together

Value = Callable[[Run], float | None]


@dataclass(frozen=True)
class Cell:
    """One number of the table: as JSON, as text, and small lines.

    These are its interval or the load of the machine, the difference from the teacher, and what makes that doubtful.
    """

    value: float | None
    text: str
    interval: str = ""
    to_teacher: str = ""
    ratio: float | None = None
    doubt: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; ``color`` marks a class."""

    key: str
    label: str
    cells: tuple[Cell, ...]
    hint: str = ""
    color: str | None = None


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Measure:
    """How one row is read from a run and written.

    Attributes:
        key: Its name in ``report.json``.
        label: Its name on the page.
        value: Reads it.
        text: Writes it.
        against: Which runs may be set against the teacher: "scores" (judged on the same pixels; a difference in
            points), "sizes" (always; a ratio), "speeds" (measured alike; a ratio) or "" (none).
        words: What a ratio below and above one is called.
        hint: What is said about it.
        color: The color of a class.
    """

    key: str
    label: str
    value: Value
    text: Callable[[float | None], str] = formatting.score
    against: Literal["scores", "sizes", "speeds", ""] = ""
    words: tuple[str, str] = ("less", "more")
    hint: str = ""
    color: str | None = None


def table(runs: Sequence[Run]) -> list[Group]:
    """Return the rows of the comparison; rows that no run has a value for are left out."""
    teacher = first(runs, "teacher") if len(runs) > 1 else None
    groups = []
    for title, measures in (
        ("Accuracy", _accuracy(runs)),
        ("IoU of each class", _classes(runs)),
        ("Cost", _cost(runs)),
        ("Training", _training()),
    ):
        rows = [
            Row(
                measure.key,
                measure.label,
                tuple(_cell(measure, run, teacher) for run in runs),
                measure.hint,
                measure.color,
            )
            for measure in measures
        ]
        kept = tuple(row for row in rows if any(cell.value is not None for cell in row.cells))
        if kept:
            groups.append(Group(title, kept))
    return groups


def as_json(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, Any]:
    """Return the table's numbers: models in column order, rows with values and ratios in that order."""
    rows = [
        {
            "key": row.key,
            "group": group.title,
            "label": row.label,
            "values": [cell.value for cell in row.cells],
            "ratio_to_teacher": [cell.ratio for cell in row.cells],
        }
        for group in groups
        for row in group.rows
    ]
    return {"models": [_model(run) for run in runs], "rows": rows}


def _model(run: Run) -> dict[str, Any]:
    evaluation, profile = run.evaluation, run.profile
    machine = run.record.machine.model_dump(exclude_none=True)
    return {
        "label": run.label,
        "role": run.role,
        "name": run.name,
        "data": evaluation.data if evaluation else run.record.data,
        "split": evaluation.split if evaluation else None,
        "leaking": evaluation.leaking if evaluation else None,
        "images": evaluation.images if evaluation else None,
        "mean_iou_interval": list(run.interval) if run.interval else None,
        "never_predicted": list(evaluation.never_predicted) if evaluation else None,
        "status": run.record.status,
        "seed": run.record.seed,
        "machine": machine or None,
        "load": profile.load.others if profile and profile.load else None,
        "busy": profile.busy if profile else None,
        "timed": profile.session if profile else None,
    }


def _cell(measure: Measure, run: Run, teacher: Run | None) -> Cell:
    value, reference, to_teacher, doubt = measure.value(run), None, "", ""
    if teacher and _fair(measure, run, teacher):
        reference = measure.value(teacher)
    if value is not None and reference is not None and teacher is not None:
        if measure.against == "scores":
            to_teacher = formatting.points(value - reference)
        else:
            to_teacher = formatting.ratio(value, reference, measure.words)
        doubt = _speed_doubt(run, teacher) if measure.key.startswith("latency") else ""
    interval = ""
    if measure.key == "mean_iou" and value is not None:
        interval = formatting.interval(run.interval)
    if measure.key == "latency_ms" and (share := _load(run)) is not None:
        interval = f"load {formatting.percent(share)}"
    ratio = value / reference if value is not None and reference else None
    return Cell(value, measure.text(value), interval, to_teacher, ratio, doubt)


def _fair(measure: Measure, run: Run, teacher: Run) -> bool:
    fair = {"scores": comparable(run, teacher), "sizes": True, "speeds": same_machine(run, teacher)}
    return run is not teacher and fair.get(measure.against, False)


def _speed_doubt(run: Run, teacher: Run) -> str:
    """Say why the ratio of two runs' latencies may be the machine's doing; empty where nothing speaks for that."""
    profiles = [one.profile for one in (run, teacher) if one.profile]
    if any(profile.busy for profile in profiles):
        return "on a busy machine"
    return "" if timed_together(profiles) else "not timed in turns"


def _load(run: Run) -> float | None:
    return run.profile.load.others if run.profile and run.profile.load else None


def _accuracy(runs: Sequence[Run]) -> list[Measure]:
    def scored(name: str) -> Value:
        return lambda run: getattr(run.evaluation.scores, name) if run.evaluation else None

    def agreed(name: str) -> Value:
        return lambda run: getattr(run.evaluation.agreement, name, None) if run.evaluation else None

    def calibrated(run: Run) -> float | None:
        return run.evaluation.calibration.expected_calibration_error if run.evaluation else None

    level = next((e.interval.level for run in runs if (e := run.evaluation) and e.interval), 0.95)
    interval = f"with its {formatting.percent(level)} bootstrap interval over images"
    return [
        Measure("mean_iou", "Mean IoU", scored("mean_iou"), against="scores", hint=interval),
        Measure("accuracy", "Pixel accuracy", scored("accuracy"), against="scores"),
        Measure("mean_accuracy", "Mean class accuracy", scored("mean_accuracy"), against="scores"),
        Measure("frequency_weighted_iou", "Frequency-weighted IoU", scored("frequency_weighted_iou"), against="scores"),
        Measure("kappa", "Cohen’s kappa", scored("kappa"), against="scores"),
        Measure("agreement", "Agreement with the teacher", agreed("accuracy"), hint="share of pixels"),
        Measure("agreement_mean_iou", "Agreement, mean IoU", agreed("mean_iou")),
        Measure("calibration_error", "Calibration error", calibrated, hint="expected (ECE); lower is better"),
    ]


def _classes(runs: Sequence[Run]) -> list[Measure]:
    colors: dict[str, str] = {}
    for run in runs:
        for entry in run.evaluation.classes if run.evaluation else ():
            colors.setdefault(entry.name, entry.color)

    def scored(name: str) -> Value:
        def value(run: Run) -> float | None:
            names = run.evaluation.class_names if run.evaluation else ()
            return run.evaluation.scores.iou[names.index(name)] if run.evaluation and name in names else None

        return value

    return [Measure(f"iou/{name}", name, scored(name), against="scores", color=color) for name, color in colors.items()]


def _cost(runs: Sequence[Run]) -> list[Measure]:
    def profiled(name: str) -> Value:
        return lambda run: getattr(run.profile, name, None)

    def latency(name: str) -> Value:
        return lambda run: getattr(run.profile.latency_ms, name, None) if run.profile else None

    profile = next((run.profile for run in runs if run.profile), None)
    size, timed, occupied = "", "measured", "measured"
    if profile:
        size = " × ".join(str(side) for side in reversed(profile.input[-2:]))
        size = f"{size} pixels" if size else ""
        threads = profile.latency_ms.threads if profile.latency_ms else None
        used = f"{threads} thread{'s' if threads != 1 else ''}" if threads else ""
        timed = ", ".join(part for part in ("measured", size, used) if part)
    if any(_load(run) is not None for run in runs):
        timed = f"{timed}; load: other programs’ share of the cores"
    baseline = next((p.baseline_memory_mb for run in runs if (p := run.profile) and p.baseline_memory_mb), None)
    if baseline:
        occupied = f"measured; {formatting.memory(baseline)} of it without any model"

    smaller, faster, less, fewer = ("smaller", "larger"), ("faster", "slower"), ("less", "more"), ("fewer", "more")
    median, slow, memory = latency("median"), latency("p95"), profiled("peak_memory_mb")
    return [
        Measure("parameters", "Parameters", lambda run: run.parameters, formatting.count, "sizes", fewer),
        Measure("macs", "Multiply-adds", profiled("macs"), formatting.scaled, "sizes", less, size),
        Measure("file_bytes", "Weight file", profiled("file_bytes"), formatting.size, "sizes", smaller),
        Measure("latency_ms", "CPU latency, median", median, formatting.milliseconds, "speeds", faster, timed),
        Measure("latency_p95_ms", "CPU latency, 95th percentile", slow, formatting.milliseconds, "speeds", faster),
        Measure("peak_memory_mb", "Peak memory", memory, formatting.memory, "speeds", less, occupied),
    ]


def _training() -> list[Measure]:
    def recorded(name: str) -> Value:
        return lambda run: getattr(run.record, name)

    def peak_beyond_libraries(run: Run) -> float | None:
        peak, libraries = run.record.peak_memory_mb, run.record.libraries_memory_mb
        return None if peak is None or libraries is None else peak - libraries

    peak, beyond = recorded("peak_memory_mb"), "Peak memory beyond the libraries"
    return [
        Measure("labeled", "Labeled images", lambda run: run.record.images.labeled, formatting.count),
        Measure("unlabeled", "Unlabeled images", lambda run: run.record.images.unlabeled, formatting.count),
        Measure("steps", "Steps", recorded("steps"), formatting.count),
        Measure("epochs", "Epochs", recorded("epochs"), formatting.count),
        Measure("seconds", "Training time", recorded("seconds"), formatting.duration),
        Measure("processor_seconds", "Processor time", recorded("processor_seconds"), formatting.duration),
        Measure("training_memory_mb", "Peak memory", peak, formatting.memory, hint="whole process"),
        Measure("training_memory_beyond_mb", beyond, peak_beyond_libraries, formatting.memory),
        Measure("training_gpu_memory_mb", "Peak GPU memory", recorded("peak_gpu_memory_mb"), formatting.memory),
        Measure("seed", "Seed", recorded("seed"), formatting.plain),
    ]
