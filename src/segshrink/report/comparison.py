"""The comparison: the table's rows, each with its difference from or ratio to the teacher, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segshrink import formatting
from segshrink.report.collect import Profile, Run
from segshrink.report.selection import comparable, first, labels, same_machine, speed_doubt

Value = Callable[[Run], float | None]
Text = Callable[[float | None], str]


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

    ``against`` says which runs may be set against the teacher: "scores" (judged on the same pixels; a difference in
    points), "sizes" (always; a ratio), "speeds" (measured alike; a ratio) or "" (none). ``words`` name a ratio below
    and above one.
    """

    key: str
    label: str
    value: Value
    text: Text = formatting.score
    against: str = ""
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
        rows = [_row(measure, runs, teacher) for measure in measures]
        kept = tuple(row for row in rows if any(cell.value is not None for cell in row.cells))
        if kept:
            groups.append(Group(title, kept))
    return groups


def as_json(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, Any]:
    """Return the table's numbers: models in column order, rows with values and ratios in that order."""
    models = [
        {
            "label": label,
            "role": run.role,
            "name": run.name,
            "data": run.evaluation.data if run.evaluation else run.data,
            "split": run.evaluation.split if run.evaluation else None,
            "leaking": run.evaluation.leaking if run.evaluation else None,
            "images": run.evaluation.images if run.evaluation else None,
            "mean_iou_interval": list(run.evaluation.interval) if run.evaluation and run.evaluation.interval else None,
            "never_predicted": list(run.evaluation.never_predicted) if run.evaluation else None,
            "status": run.status,
            "seed": run.seed,
            "machine": run.machine or None,
            "load": run.profile.load if run.profile else None,
            "busy": run.profile.busy if run.profile else None,
            "timed": run.profile.session if run.profile else None,
        }
        for label, run in zip(labels(runs), runs, strict=True)
    ]
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
    return {"models": models, "rows": rows}


def _row(measure: Measure, runs: Sequence[Run], teacher: Run | None) -> Row:
    cells = []
    for run in runs:
        own = measure.value(run)
        reference = measure.value(teacher) if teacher and _fair(measure, run, teacher) else None
        interval, to_teacher, ratio, doubt = "", "", None, ""
        if own is not None and reference is not None:
            scored = measure.against == "scores"
            to_teacher = (
                formatting.points(own - reference) if scored else formatting.ratio(own, reference, measure.words)
            )
            ratio = own / reference if reference else None
            doubt = speed_doubt(run, teacher) if teacher and measure.key.startswith("latency") else ""
        if measure.key == "mean_iou" and run.evaluation and own is not None:
            interval = formatting.interval(run.evaluation.interval)
        if measure.key == "latency_ms" and run.profile and run.profile.load is not None:
            interval = f"load {formatting.percent(run.profile.load)}"
        cells.append(Cell(own, measure.text(own), interval, to_teacher, ratio, doubt))
    return Row(measure.key, measure.label, tuple(cells), measure.hint, measure.color)


def _fair(measure: Measure, run: Run, teacher: Run) -> bool:
    if run is teacher:
        return False
    fair = {"scores": comparable(run, teacher), "sizes": True, "speeds": same_machine(run, teacher)}
    return fair.get(measure.against, False)


def _accuracy(runs: Sequence[Run]) -> list[Measure]:
    def scored(name: str) -> Value:
        return lambda run: run.evaluation.scores.get(name) if run.evaluation else None

    def agreed(name: str) -> Value:
        return lambda run: run.evaluation.agreement.get(name) if run.evaluation else None

    level = next((run.evaluation.level for run in runs if run.evaluation), 0.95)
    interval = f"with its {formatting.percent(level)} bootstrap interval over images"
    return [
        Measure("mean_iou", "Mean IoU", scored("mean_iou"), against="scores", hint=interval),
        Measure("accuracy", "Pixel accuracy", scored("accuracy"), against="scores"),
        Measure("mean_accuracy", "Mean class accuracy", scored("mean_accuracy"), against="scores"),
        Measure("frequency_weighted_iou", "Frequency-weighted IoU", scored("frequency_weighted_iou"), against="scores"),
        Measure("kappa", "Cohen’s kappa", scored("kappa"), against="scores"),
        Measure("agreement", "Agreement with the teacher", agreed("accuracy"), hint="share of pixels"),
        Measure("agreement_mean_iou", "Agreement, mean IoU", agreed("mean_iou")),
        Measure(
            "calibration_error",
            "Calibration error",
            lambda run: run.evaluation.calibration_error if run.evaluation else None,
            hint="expected (ECE); lower is better",
        ),
    ]


def _classes(runs: Sequence[Run]) -> list[Measure]:
    order: dict[str, str] = {}
    for run in runs:
        for entry in run.evaluation.classes if run.evaluation else ():
            order.setdefault(entry.name, entry.color)

    def taken(name: str) -> Value:
        def value(run: Run) -> float | None:
            names = [entry.name for entry in run.evaluation.classes] if run.evaluation else []
            return run.evaluation.iou[names.index(name)] if run.evaluation and name in names else None

        return value

    return [Measure(f"iou/{name}", name, taken(name), against="scores", color=color) for name, color in order.items()]


def _cost(runs: Sequence[Run]) -> list[Measure]:
    profile = next((run.profile for run in runs if run.profile), None)
    size = f"{profile.input[-1]} × {profile.input[-2]} pixels" if profile and len(profile.input) > 1 else ""
    threads = f"{profile.threads} thread{'s' if profile.threads != 1 else ''}" if profile and profile.threads else ""
    measured = ", ".join(part for part in ("measured", size, threads) if part)
    loaded = any(run.profile and run.profile.load is not None for run in runs)
    timed = f"{measured}; load: other programs’ share of the cores" if loaded else measured

    baseline = next((run.profile.baseline_memory for run in runs if run.profile and run.profile.baseline_memory), None)
    occupied = f"measured; {formatting.memory(baseline)} of it without any model" if baseline else "measured"

    def profiled(read: Callable[[Profile], float | None]) -> Value:
        return lambda run: read(run.profile) if run.profile else None

    smaller, faster, less = ("smaller", "larger"), ("faster", "slower"), ("less", "more")
    median, slow, memory = (
        profiled(lambda profile: profile.latency_median),
        profiled(lambda profile: profile.latency_p95),
        profiled(lambda profile: profile.peak_memory),
    )
    return [
        Measure("parameters", "Parameters", lambda run: run.parameters, formatting.count, "sizes", ("fewer", "more")),
        Measure("macs", "Multiply-adds", profiled(lambda one: one.macs), formatting.scaled, "sizes", less, size),
        Measure("file_bytes", "Weight file", profiled(lambda one: one.file_bytes), formatting.size, "sizes", smaller),
        Measure("latency_ms", "CPU latency, median", median, formatting.milliseconds, "speeds", faster, timed),
        Measure("latency_p95_ms", "CPU latency, 95th percentile", slow, formatting.milliseconds, "speeds", faster),
        Measure("peak_memory_mb", "Peak memory", memory, formatting.memory, "speeds", less, occupied),
    ]


def _training() -> list[Measure]:
    return [
        Measure("labeled", "Labelled images", lambda run: run.labeled, formatting.count),
        Measure("unlabeled", "Unlabelled images", lambda run: run.unlabeled, formatting.count),
        Measure("steps", "Steps", lambda run: run.steps, formatting.count),
        Measure("epochs", "Epochs", lambda run: run.epochs, formatting.count),
        Measure("seconds", "Training time", lambda run: run.seconds, formatting.duration),
        Measure("seed", "Seed", lambda run: run.seed, formatting.plain),
    ]
