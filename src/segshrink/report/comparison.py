"""The comparison: the table's rows, each with its difference from or ratio to the teacher, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from segshrink import formatting
from segshrink.report.runs import Run, comparable, first, same_machine, timed_together


@dataclass(frozen=True)
class Cell:
    """One number of the table: as JSON, as text, and small lines.

    Attributes:
        value: The number; None where it wasn't measured.
        text: The same for people.
        note: Its interval, or the load of the machine.
        to_teacher: Its difference from the teacher's, or how many times less or more it is.
        ratio: The ratio to the teacher's.
        doubt: What makes that ratio doubtful.
    """

    value: float | None
    text: str
    note: str = ""
    to_teacher: str = ""
    ratio: float | None = None
    doubt: str = ""


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
    value: Callable[[Run], float | None] = lambda _: None
    text: Callable[[float | None], str] = formatting.score
    against: Literal["scores", "sizes", "speeds", ""] = ""
    words: tuple[str, str] = ("less", "more")
    hint: str = ""
    color: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a measure of every run."""

    measure: Measure
    cells: tuple[Cell, ...]


def _at(path: str) -> Callable[[Run], float | None]:
    """Return what follows attributes of a run; None where one on the way is None."""
    return partial(_follow, path.split("."))


def _follow(names: Sequence[str], run: Run) -> Any:
    value: Any = run
    for name in names:
        value = None if value is None else getattr(value, name)
    return value


_SCORES = {
    "mean_iou": "Mean IoU",
    "accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean class accuracy",
    "frequency_weighted_iou": "Frequency-weighted IoU",
    "kappa": "Cohen’s kappa",
}
_ERROR = "evaluation.calibration.expected_calibration_error"
_FASTER = ("faster", "slower")
ACCURACY = (
    *(Measure(key, label, _at(f"evaluation.scores.{key}"), against="scores") for key, label in _SCORES.items()),
    Measure("agreement", "Agreement with the teacher", _at("evaluation.agreement.accuracy"), hint="share of pixels"),
    Measure("agreement_mean_iou", "Agreement, mean IoU", _at("evaluation.agreement.mean_iou")),
    Measure("calibration_error", "Calibration error", _at(_ERROR), hint="expected (ECE); lower is better"),
)
COST = (
    Measure("parameters", "Parameters", _at("parameters"), formatting.count, "sizes", ("fewer", "more")),
    Measure("macs", "Multiply-adds", _at("profile.macs"), formatting.scaled, "sizes"),
    Measure("file_bytes", "Weight file", _at("profile.file_bytes"), formatting.size, "sizes", ("smaller", "larger")),
    Measure("latency_ms", "CPU latency, median", _at("latency"), formatting.milliseconds, "speeds", _FASTER),
    Measure(
        "latency_p95_ms",
        "CPU latency, 95th percentile",
        _at("profile.latency_ms.p95"),
        formatting.milliseconds,
        "speeds",
        _FASTER,
    ),
    Measure("peak_memory_mb", "Peak memory", _at("profile.peak_memory_mb"), formatting.memory, "speeds"),
)
TRAINING = (
    Measure("labeled", "Labeled images", _at("record.images.labeled"), formatting.count),
    Measure("unlabeled", "Unlabeled images", _at("record.images.unlabeled"), formatting.count),
    Measure("steps", "Steps", _at("record.steps"), formatting.count),
    Measure("epochs", "Epochs", _at("record.epochs"), formatting.count),
    Measure("seconds", "Training time", _at("record.seconds"), formatting.duration),
    Measure("processor_seconds", "Processor time", _at("record.processor_seconds"), formatting.duration),
    Measure("training_memory_mb", "Peak memory", _at("record.peak_memory_mb"), formatting.memory),
    Measure(
        "training_memory_beyond_mb",
        "… beyond the libraries",
        _at("record.memory_beyond_libraries_mb"),
        formatting.memory,
    ),
    Measure("training_gpu_memory_mb", "Peak GPU memory", _at("record.gpu_peak_memory_mb"), formatting.memory),
    Measure("seed", "Seed", _at("record.seed"), formatting.plain),
)


def table(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """Return the rows of the comparison by the title of their group; what no run has a value for is left out."""
    teacher = first(runs, "teacher") if len(runs) > 1 else None
    hints = _hints(runs)
    groups = {"Accuracy": ACCURACY, "IoU of each class": _classes(runs), "Cost": COST, "Training": TRAINING}
    rows = {
        title: [
            Row(
                replace(measure, hint=hints.get(measure.key, measure.hint)),
                tuple(_cell(measure, run, teacher) for run in runs),
            )
            for measure in measures
            if any(measure.value(run) is not None for run in runs)
        ]
        for title, measures in groups.items()
    }
    return {title: kept for title, kept in rows.items() if kept}


def as_json(runs: Sequence[Run], groups: dict[str, list[Row]]) -> dict[str, Any]:
    """Return the table's numbers: models in column order, rows with values and ratios in that order."""
    rows = [
        {
            "key": row.measure.key,
            "group": title,
            "label": row.measure.label,
            "values": [cell.value for cell in row.cells],
            "ratio_to_teacher": [cell.ratio for cell in row.cells],
        }
        for title, group in groups.items()
        for row in group
    ]
    return {"models": [_model(run) for run in runs], "rows": rows}


def _model(run: Run) -> dict[str, Any]:
    evaluation, profile = run.evaluation, run.profile
    return {
        "label": run.label,
        "role": run.role,
        "name": run.name,
        "data": evaluation.data if evaluation else run.record.data,
        "split": evaluation and evaluation.split,
        "leaking": evaluation and evaluation.leaking,
        "images": evaluation and evaluation.images,
        "mean_iou_interval": run.interval,
        "never_predicted": evaluation and evaluation.never_predicted,
        "status": run.record.status,
        "seed": run.record.seed,
        "machine": run.record.machine.model_dump(exclude_none=True) or None,
        "load": profile and profile.load and profile.load.others,
        "busy": profile and profile.busy,
        "timed": profile and profile.session,
    }


def class_colors(runs: Sequence[Run]) -> dict[str, str]:
    """Return the color of each class that a run was judged on, in the first run's order and colors."""
    colors: dict[str, str] = {}
    for entry in (entry for run in runs if run.evaluation for entry in run.evaluation.classes):
        colors.setdefault(entry.name, entry.color)
    return colors


def _classes(runs: Sequence[Run]) -> tuple[Measure, ...]:
    return tuple(
        Measure(f"iou/{name}", name, partial(_class_iou, name), against="scores", color=color)
        for name, color in class_colors(runs).items()
    )


def _class_iou(name: str, run: Run) -> float | None:
    names = run.evaluation.class_names if run.evaluation else ()
    return run.evaluation.scores.iou[names.index(name)] if run.evaluation and name in names else None


def _hints(runs: Sequence[Run]) -> dict[str, str]:
    """Return what is said about measures whose circumstances differ from report to report."""
    profiles = [run.profile for run in runs if run.profile]
    intervals = [run.evaluation.interval for run in runs if run.evaluation and run.evaluation.interval]
    level = intervals[0].level if intervals else 0.95
    size, timed, occupied = "", "measured", "measured"
    if profiles:
        sides, threads = profiles[0].input[-2:], profiles[0].latency_ms and profiles[0].latency_ms.threads
        size = f"{sides[1]} × {sides[0]} pixels" if len(sides) == 2 else ""
        timed = f"{timed}, {size}" if size else timed
        timed = f"{timed}, {threads} thread{'s' if threads != 1 else ''}" if threads else timed
    if any(profile.load and profile.load.others is not None for profile in profiles):
        timed = f"{timed}; load: other programs’ share of the cores"
    if baseline := next((p.baseline_memory_mb for p in profiles if p.baseline_memory_mb), None):
        occupied = f"measured; {formatting.memory(baseline)} of it without any model"
    interval = f"with its {formatting.percent(level)} bootstrap interval over images"
    return {
        "mean_iou": interval,
        "accuracy": f"overall accuracy, {interval}",
        "macs": size,
        "latency_ms": timed,
        "peak_memory_mb": occupied,
    }


def _cell(measure: Measure, run: Run, teacher: Run | None) -> Cell:
    value, note = measure.value(run), ""
    if measure.key == "mean_iou" and value is not None:
        note = formatting.interval(run.interval)
    if measure.key == "accuracy" and run.evaluation and run.evaluation.interval:
        note = formatting.interval(run.evaluation.interval.accuracy)
    if measure.key == "latency_ms" and run.profile and run.profile.load and run.profile.load.others is not None:
        note = f"load {formatting.percent(run.profile.load.others)}"
    cell = Cell(value, measure.text(value), note)
    reference = measure.value(teacher) if teacher and _fair(measure, run, teacher) else None
    if value is None or reference is None or teacher is None:
        return cell
    scored = measure.against == "scores"
    difference = formatting.points(value - reference) if scored else formatting.ratio(value, reference, measure.words)
    return replace(
        cell,
        to_teacher=difference,
        ratio=value / reference if reference else None,
        doubt=_speed_doubt(run, teacher) if measure.key.startswith("latency") else "",
    )


def _fair(measure: Measure, run: Run, teacher: Run) -> bool:
    fair = {"scores": comparable(run, teacher), "sizes": True, "speeds": same_machine(run, teacher)}
    return run is not teacher and fair.get(measure.against, False)


def _speed_doubt(run: Run, teacher: Run) -> str:
    """Say why the ratio of two runs' latencies may be the machine's doing; empty where nothing speaks for that."""
    profiles = [timed.profile for timed in (run, teacher) if timed.profile]
    if any(profile.busy for profile in profiles):
        return "on a busy machine"
    return "" if timed_together(profiles) else "not timed in turns"
