"""Read the run folders of ``benchmarks/dubai.py`` and write its table, numbers and plots.

    python benchmarks/dubai_results.py runs/benchmark-dubai

Writes ``dubai.json``, ``dubai.md`` and two plots into ``benchmarks/results/``; no picture shows the data set's images.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segshrink.files import read_json, write_json, write_text

RESULTS = Path(__file__).resolve().parent / "results"
PUBLISHED = {
    "half-width U-Net student, 485,862 parameters": {
        "accuracy": 0.556, "mIoU": 0.20, "weighted precision": 0.36, "weighted recall": 0.56,
    },
    "full U-Nets of the tutorials": {"mIoU": 0.75},
}  # fmt: skip


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return what a finished and evaluated run reached, or None."""
    if not (folder / "evaluation.json").exists():
        return None
    record, evaluation = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
    scores = evaluation["scores"]
    classes = [entry["name"] for entry in evaluation["classes"]]
    return {
        "seed": record["seed"],
        "steps": record["steps"],
        "seconds": record["seconds"],
        "validations": validation_curve(folder),
        "parameters": evaluation["model"]["parameters"],
        "mean_iou": scores["mean_iou"],
        "interval": evaluation["interval"]["mean_iou"],
        "accuracy": scores["accuracy"],
        "weighted_precision": weighted(scores["precision"], evaluation["confusion"]),
        "weighted_recall": weighted(scores["recall"], evaluation["confusion"]),
        "iou": dict(zip(classes, scores["iou"], strict=True)),
        "average_precision": {curve["class"]: curve["average_precision"] for curve in evaluation["curves"]},
        "expected_calibration_error": evaluation["calibration"]["expected_calibration_error"],
        "never_predicted": evaluation["never_predicted"],
        "leaking": evaluation["leaking"],
        "machine": record["machine"],
        "created": record["created"],
        "segshrink": record["segshrink"],
    }


def weighted(values: Sequence[float | None], confusion: Sequence[Sequence[int]]) -> float:
    """Return the mean over classes weighted by their true pixels (rows of the matrix), as scikit-learn has it."""
    support = [sum(row) for row in confusion]
    return sum((value or 0.0) * count for value, count in zip(values, support, strict=True)) / sum(support)


def collect(out: Path) -> dict[str, Any]:
    """Return the results of all finished runs under ``out``."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for role in ("control", "student"):
        runs = [read_run(folder) for folder in sorted(out.glob(f"{role}-[0-9]"))]
        if found := [run for run in runs if run is not None]:
            seeds[role] = found
    groups = {
        fold.name: {role: read_run(fold / role) for role in ("teacher", "control", "student")}
        for fold in sorted((out / "groups").glob("*"))
    }
    patches = {role: read_run(out / "patches" / role) for role in ("teacher", "control", "student")}
    return {
        "teacher": read_run(out / "teacher"),
        "seeds": seeds,
        "summary": {role: _spread([run["mean_iou"] for run in runs]) for role, runs in seeds.items()},
        "equal_time": equal_time(seeds),
        "groups": groups,
        "patches": {"leaking": True, **patches, "published": PUBLISHED},
    }


def equal_time(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    """Return what the students had reached in the control's time, or None without both.

    A step's time is taken from each role's quickest run, since others ran beside other work. The students are judged
    by their last validation within that time, when their learning rate had not come down yet: a lower bound.
    """
    if not {"control", "student"} <= seeds.keys():
        return None
    control, student = (min(run["seconds"] / run["steps"] for run in seeds[role]) for role in ("control", "student"))
    steps = int(seeds["control"][0]["steps"] * control / student)
    reached = [[point for point in run["validations"] if point[0] <= steps][-1] for run in seeds["student"]]
    return {
        "seconds_per_step": {"control": control, "student": student},
        "steps_in_the_controls_time": steps,
        "judged_at_step": [step for step, _ in reached],
        "student": _spread([score for _, score in reached]),
    }


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    return {
        "runs": len(values),
        "mean": statistics.mean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
    }


def to_markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a Markdown page."""
    teacher = results["teacher"]
    machine = teacher["machine"]
    lines = [
        "# Dubai aerial scenes",
        "",
        f"Written by `benchmarks/dubai_results.py` from runs of `benchmarks/dubai.py`, begun {teacher['created']}, "
        f"segshrink {teacher['segshrink']}, {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, "
        f"Python {machine['python']}, {machine['precision']}. Some trainings ran beside other work, so minutes are "
        "upper bounds; steps are the fair measure.",
        "",
        "## Tiles split: train 4, 6, 7, 8; judged on 2 and 5 (leak-free)",
        "",
        *_table([("teacher", teacher), *_named_seeds(results)]),
        "",
        *_summary_lines(results),
        "",
        "## Leave one group out",
        "",
        *_groups(results["groups"]),
        "",
        "## The tutorials' protocol: shuffled 256-pixel patches. LEAKING: judged pixels lie beside training pixels",
        "",
        *_table([(f"{role} (leaking)", results["patches"][role]) for role in ("teacher", "control", "student")]),
        "",
        *_as_published(results["patches"]),
        *[
            f"- published this way, {name}: {', '.join(f'{key} {value}' for key, value in values.items())}"
            for name, values in PUBLISHED.items()
        ],
    ]
    return "\n".join(lines) + "\n"


def _as_published(patches: Mapping[str, Any]) -> list[str]:
    return [
        f"- {role} (leaking), {run['parameters']:,} parameters: accuracy {run['accuracy']:.3f}, mIoU "
        f"{run['mean_iou']:.3f}, weighted precision {run['weighted_precision']:.3f}, weighted recall "
        f"{run['weighted_recall']:.3f}"
        for role in ("teacher", "control", "student")
        if (run := patches[role]) is not None
    ]


def _named_seeds(results: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{role}, seed {run['seed']}", run) for role, runs in results["seeds"].items() for run in runs]


def _table(rows: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[str]:
    present = [(name, run) for name, run in rows if run is not None]
    if not present:
        return ["(not run)"]
    classes = list(present[0][1]["iou"])
    head = ["run", "parameters", "steps", "threads", "minutes", "mIoU", "95 % interval", "accuracy", *classes]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, run in present:
        low, high = run["interval"]
        cells = [
            name, f"{run['parameters']:,}", str(run["steps"]), str(run["machine"]["threads"]),
            f"{run['seconds'] / 60:.1f}", f"{run['mean_iou']:.3f}",
            f"{low:.3f} to {high:.3f}", f"{run['accuracy']:.3f}",
            *["-" if value is None else f"{value:.3f}" for value in run["iou"].values()],
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _summary_lines(results: Mapping[str, Any]) -> list[str]:
    summary = results["summary"]
    lines = []
    for role, spread in summary.items():
        deviation = spread["standard_deviation"]
        shown = f" ± {deviation:.3f}" if deviation is not None else ""
        lines.append(f"- {role}: mean mIoU {spread['mean']:.3f}{shown} over {spread['runs']} seeds")
    if {"control", "student"} <= summary.keys():
        gain = summary["student"]["mean"] - summary["control"]["mean"]
        gap = results["teacher"]["mean_iou"] - summary["student"]["mean"]
        lines.append(f"- student above control at equal steps: {100 * gain:+.1f} points")
        lines.append(f"- student below teacher: {100 * gap:+.1f} points")
        lines.append(_equal_time_line(results))
    return lines


def _equal_time_line(results: Mapping[str, Any]) -> str:
    equal, control = results["equal_time"], results["summary"]["control"]["mean"]
    seconds, reached = equal["seconds_per_step"], equal["student"]["mean"]
    return (
        f"- at equal time: a step took the control {seconds['control']:.3f} s, the student {seconds['student']:.3f} s "
        f"(each role's quickest run), so {equal['steps_in_the_controls_time']} steps of the student fit into the "
        f"control's time; at its last validation before that, step {max(equal['judged_at_step'])}, learning rate still "
        f"high, the students' mean was {reached:.3f}: {100 * (reached - control):+.1f} points to the control's end"
    )


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not groups:
        return ["(not run)"]
    lines = ["| held out | teacher | control | student | student - control |", "|---|---|---|---|---|"]
    gains = []
    for name, roles in groups.items():
        scores = {role: run["mean_iou"] if run else None for role, run in roles.items()}
        cells = ["-" if value is None else f"{value:.3f}" for value in scores.values()]
        if scores["control"] is not None and scores["student"] is not None:
            gains.append(scores["student"] - scores["control"])
            cells.append(f"{100 * gains[-1]:+.1f}")
        else:
            cells.append("-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if gains:
        lines += ["", f"Mean gain {100 * statistics.mean(gains):+.1f} points over {len(gains)} folds."]
    return lines


def plot(out: Path, results: Mapping[str, Any]) -> None:
    """Draw validation mIoU over steps for every run, and precision-recall curves of teacher, control and student."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    colors = {"teacher": "#444444", "control": "#d95f02", "student": "#1b7f5d"}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for role, color in colors.items():
        for number, folder in enumerate(sorted(out.glob(role if role == "teacher" else f"{role}-[0-9]"))):
            points = validation_curve(folder)
            axes.plot(*zip(*points, strict=True), color=color, label=role if number == 0 else None)
    axes.set(xlabel="step", ylabel="validation mIoU", title="Dubai, tiles split")
    axes.legend(frameon=False)
    figure.savefig(RESULTS / "dubai-validation.png", dpi=150)
    plt.close(figure)

    classes = list(results["teacher"]["iou"])
    figure, panels = plt.subplots(1, len(classes), figsize=(3 * len(classes), 3), layout="constrained", sharey=True)
    for role, color in colors.items():
        folder = out / (role if role == "teacher" else f"{role}-0")
        if (folder / "evaluation.json").exists():
            for panel, curve in zip(panels, read_json(folder / "evaluation.json")["curves"], strict=True):
                label = f"{role} {curve['average_precision']:.2f}"
                panel.plot(curve["recall"], curve["precision"], color=color, label=label)
                panel.set(title=curve["class"], xlabel="recall", xlim=(0, 1), ylim=(0, 1))
                panel.legend(frameon=False, fontsize=7, title="average precision", title_fontsize=7)
    panels[0].set(ylabel="precision")
    figure.savefig(RESULTS / "dubai-precision-recall.png", dpi=130)
    plt.close(figure)


def validation_curve(folder: Path) -> list[tuple[int, float]]:
    """Return (step, validation mIoU) of a run's validations."""
    rows = csv.DictReader((folder / "metrics.csv").read_text(encoding="utf-8").splitlines())
    return [(int(row["step"]), float(row["val/mean_iou"])) for row in rows if row.get("val/mean_iou")]


def main(out: Path) -> None:
    """Write the results of the runs under ``out``."""
    results = collect(out)
    if results["teacher"] is None:
        raise SystemExit(f"{out} holds no finished teacher; run benchmarks/dubai.py first")
    write_json(RESULTS / "dubai.json", results)
    write_text(RESULTS / "dubai.md", to_markdown(results))
    plot(out, results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
