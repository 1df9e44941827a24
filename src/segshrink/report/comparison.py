"""The comparison: labels, the table's rows, each with its ratio to the teacher, and the numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segshrink.report import wording
from segshrink.report.collect import Run


@dataclass(frozen=True)
class Cell:
    """One number of the table: as JSON, as text, and a small second line (interval, ratio to the teacher)."""

    value: float | None
    text: str
    interval: str = ""
    to_teacher: str = ""
    ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table; ``color`` marks a class, ``share`` says that values are 0 to 1."""

    key: str
    label: str
    cells: tuple[Cell, ...]
    hint: str = ""
    color: str | None = None
    share: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a short, unique name for each run: its role, with its name where several share a role."""
    result: list[str] = []
    for run in runs:
        alone = sum(other.role == run.role for other in runs) == 1
        title = run.role.capitalize()
        label = title if alone and run.role != "model" else run.name if run.role == "model" else f"{title} {run.name}"
        result.append(label)
    return [
        label if result.count(label) == 1 else f"{label} ({result[: i + 1].count(label)})"
        for i, label in enumerate(result)
    ]


def focus(runs: Sequence[Run]) -> Run | None:
    """Return the run the page is about: the first evaluated student, else the last evaluated run."""
    evaluated = [run for run in runs if run.evaluation]
    return next((run for run in evaluated if run.role == "student"), evaluated[-1] if evaluated else None)


def first(runs: Sequence[Run], role: str) -> Run | None:
    """Return the first run of ``role``, evaluated ones before others."""
    matching = [run for run in runs if run.role == role]
    return next((run for run in matching if run.evaluation), matching[0] if matching else None)


def comparable(one: Run | None, other: Run | None) -> bool:
    """Whether two runs were judged on the same split of the same data with the same classes and pixels."""
    if one is None or other is None or one.evaluation is None or other.evaluation is None:
        return False
    a, b = one.evaluation, other.evaluation
    same_classes = [entry.name for entry in a.classes] == [entry.name for entry in b.classes]
    return same_classes and (a.data, a.split, a.images, a.pixels) == (b.data, b.split, b.images, b.pixels)


def same_machine(one: Run | None, other: Run | None) -> bool:
    """Whether two profiles were measured alike: same processor, threads and input."""
    if one is None or other is None or one.profile is None or other.profile is None:
        return False
    a, b = one.profile, other.profile
    return (a.machine, a.threads, a.input) == (b.machine, b.threads, b.input)


def table(runs: Sequence[Run]) -> list[Group]:
    """Return the rows of the comparison; rows that no run has a value for are left out."""
    teacher = first(runs, "teacher") if len(runs) > 1 else None
    groups = [
        Group("Accuracy", tuple(_accuracy(runs, teacher))),
        Group("IoU of each class", tuple(_classes(runs, teacher))),
        Group("Cost", tuple(_cost(runs, teacher))),
        Group("Training", tuple(_training(runs))),
    ]
    kept = [
        Group(group.title, tuple(row for row in group.rows if any(cell.value is not None for cell in row.cells)))
        for group in groups
    ]
    return [group for group in kept if group.rows]


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


def _accuracy(runs: Sequence[Run], teacher: Run | None) -> list[Row]:
    def taken(name: str) -> Callable[[Run], float | None]:
        return lambda run: run.evaluation.scores.get(name) if run.evaluation else None

    def agreed(name: str) -> Callable[[Run], float | None]:
        return lambda run: run.evaluation.agreement.get(name) if run.evaluation else None

    def calibration(run: Run) -> float | None:
        return run.evaluation.calibration_error if run.evaluation else None

    mean_iou = _share_row("mean_iou", "Mean IoU", runs, taken("mean_iou"), teacher, "mean over the classes present")
    with_intervals = tuple(
        Cell(cell.value, cell.text, wording.interval(run.evaluation.interval), cell.to_teacher, cell.ratio)
        if run.evaluation and cell.value is not None
        else cell
        for run, cell in zip(runs, mean_iou.cells, strict=True)
    )
    level = next((run.evaluation.level for run in runs if run.evaluation), 0.95)
    hint = f"with its {100 * level:.0f} % bootstrap interval over images"
    return [
        Row("mean_iou", "Mean IoU", with_intervals, hint, share=True),
        _share_row("accuracy", "Pixel accuracy", runs, taken("accuracy"), teacher),
        _share_row("mean_accuracy", "Mean class accuracy", runs, taken("mean_accuracy"), teacher),
        _share_row("frequency_weighted_iou", "Frequency-weighted IoU", runs, taken("frequency_weighted_iou"), teacher),
        _share_row("kappa", "Cohen's kappa", runs, taken("kappa"), teacher),
        _share_row("agreement", "Agreement with the teacher", runs, agreed("accuracy"), None, "share of pixels"),
        _share_row("agreement_mean_iou", "Agreement, mean IoU", runs, agreed("mean_iou"), None),
        _share_row(
            "calibration_error", "Calibration error", runs, calibration, None, "expected, 15 bins; lower is better"
        ),
    ]


def _classes(runs: Sequence[Run], teacher: Run | None) -> list[Row]:
    order: dict[str, str] = {}
    for run in runs:
        for entry in run.evaluation.classes if run.evaluation else ():
            order.setdefault(entry.name, entry.color)

    def taken(name: str) -> Callable[[Run], float | None]:
        def value(run: Run) -> float | None:
            names = [entry.name for entry in run.evaluation.classes] if run.evaluation else []
            return run.evaluation.iou[names.index(name)] if run.evaluation and name in names else None

        return value

    return [_share_row(f"iou/{name}", name, runs, taken(name), teacher, color=color) for name, color in order.items()]


def _share_row(
    key: str,
    label: str,
    runs: Sequence[Run],
    value: Callable[[Run], float | None],
    teacher: Run | None,
    hint: str = "",
    *,
    color: str | None = None,
) -> Row:
    cells = []
    for run in runs:
        own = value(run)
        reference = value(teacher) if teacher and teacher is not run and comparable(run, teacher) else None
        known = own is not None and reference is not None
        cells.append(
            Cell(
                own,
                wording.score(own),
                to_teacher=wording.points(own - reference) if own is not None and reference is not None else "",
                ratio=own / reference if known and own is not None and reference else None,
            )
        )
    return Row(key, label, tuple(cells), hint, color, share=True)


def _cost(runs: Sequence[Run], teacher: Run | None) -> list[Row]:
    profile = next((run.profile for run in runs if run.profile), None)
    shape = " × ".join(map(str, profile.input)) if profile and profile.input else ""
    threads = f"{profile.threads} thread{'s' if profile.threads != 1 else ''}" if profile and profile.threads else ""
    measured = ", ".join(part for part in (f"input {shape}" if shape else "", threads) if part)

    def row(
        key: str,
        label: str,
        value: Callable[[Run], float | None],
        text: Callable[[float | None], str],
        hint: str = "",
        *,
        timed: bool = False,
    ) -> Row:
        cells = []
        for run in runs:
            own = value(run)
            fair = teacher is not None and teacher is not run and (not timed or same_machine(run, teacher))
            reference = value(teacher) if fair and teacher else None
            known = own is not None and reference
            cells.append(
                Cell(
                    own,
                    text(own),
                    to_teacher=wording.ratio(own, reference) if own is not None and reference else "",
                    ratio=own / reference if known and own is not None and reference else None,
                )
            )
        return Row(key, label, tuple(cells), hint)

    return [
        row("parameters", "Parameters", lambda run: run.parameters, wording.count),
        row("macs", "Multiply-adds", lambda run: run.profile and run.profile.macs, wording.scaled, f"input {shape}"),
        row("file_bytes", "Weight file", lambda run: run.profile and run.profile.file_bytes, wording.size),
        row(
            "latency_ms",
            "CPU latency, median",
            lambda run: run.profile and run.profile.latency_median,
            wording.milliseconds,
            f"measured; {measured}",
            timed=True,
        ),
        row(
            "latency_p95_ms",
            "CPU latency, 95th percentile",
            lambda run: run.profile and run.profile.latency_p95,
            wording.milliseconds,
            timed=True,
        ),
        row(
            "peak_memory_mb",
            "Peak memory",
            lambda run: run.profile and run.profile.peak_memory,
            wording.memory,
            "measured",
            timed=True,
        ),
    ]


def _training(runs: Sequence[Run]) -> list[Row]:
    def row(
        key: str, label: str, value: Callable[[Run], float | None], text: Callable[[float | None], str], hint: str = ""
    ) -> Row:
        return Row(key, label, tuple(Cell(value(run), text(value(run))) for run in runs), hint)

    return [
        row("labeled", "Labelled images", lambda run: run.labeled, wording.count),
        row("unlabeled", "Unlabelled images", lambda run: run.unlabeled, wording.count),
        row("steps", "Steps", lambda run: run.steps, wording.count),
        row("epochs", "Epochs", lambda run: run.epochs, wording.count),
        row("seconds", "Training time", lambda run: run.seconds, wording.duration),
        row("seed", "Seed", lambda run: run.seed, lambda seed: wording.NOTHING if seed is None else f"{seed:.0f}"),
    ]
