"""The figures: intervals, accuracy over cost, training, precision-recall curves, confusion, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from segshrink import formatting
from segshrink.evaluation_records import EvaluationRecord
from segshrink.report.panels import DASHES, LIGHT, Dash, Panel, plain_logarithmic, slug
from segshrink.report.runs import Run, comparable, focus, same_machine

# How much of its color a bin of hardly any pixels keeps.
FAINTEST = 0.12
# More classes than this are drawn with smaller letters, and names longer than this are cut.
MANY_CLASSES, LONG_NAME = 8, 14
# The column of metrics.csv that compares all runs.
MEAN_IOU = "val/mean_iou"
# A loss that falls by more than this factor is drawn on a logarithmic axis.
STEEP = 30
# Curves of fewer points show each of them: the mIoU of whole scenes isn't measured after every epoch.
FEW_POINTS = 10


def summary_panels(runs: Sequence[Run]) -> list[Panel]:
    """Mean IoU of each run with its bootstrap interval, and mean IoU over what a run costs."""
    main = focus(runs)
    shown = [run for run in runs if run.mean_iou is not None and (run is main or comparable(run, main))]
    if len(shown) < 2:
        return []
    panels = [_interval_panel(shown)]
    timed = [run for run in shown if run is main or same_machine(run, main)]
    latencies, sizes = [run.latency or 0.0 for run in timed], [run.parameters or 0 for run in shown]
    if len(timed) > 1 and all(latencies):
        panels.append(_cost_panel(timed, latencies, "latency", "Accuracy over latency", "CPU latency in ms"))
    elif all(sizes):
        panels.append(_cost_panel(shown, sizes, "parameters", "Accuracy over size", "parameters"))
    return panels


def training_panels(runs: Sequence[Run]) -> list[Panel]:
    """Loss, validation mean IoU, and each term of the loss; a term is on one panel for all runs."""
    columns = dict.fromkeys(column for run in runs for column in run.metrics if column != MEAN_IOU)
    stages = [column.partition("/") for column in columns]
    terms = dict.fromkeys(term for stage, _, term in stages if stage in ("train", "val") and term)
    panels = []
    for term in sorted(terms, key=lambda term: term != "loss"):
        title = "Loss" if term == "loss" else f"Loss term: {term.replace('_', ' ')}"
        key = "loss" if term == "loss" else f"loss_{slug(term)}"
        panels.append(_training_panel(runs, key, title, f"train/{term}", f"val/{term}"))
    if any(MEAN_IOU in run.metrics for run in runs):
        panels[1:1] = [_training_panel(runs, "validation_mean_iou", "Validation mean IoU", MEAN_IOU)]
    return panels


def curve_panels(runs: Sequence[Run]) -> list[Panel]:
    """One-vs-rest precision-recall curves, one panel for each class, all runs on it."""
    evaluations = [run.evaluation for run in runs if run.evaluation]
    colors = {entry.name: entry.color for evaluation in evaluations for entry in evaluation.classes}
    names = dict.fromkeys(curve.name for evaluation in evaluations for curve in evaluation.curves if curve.recall)
    panels = [_curve_panel(runs, name, place, colors.get(name)) for place, name in enumerate(names, start=1)]
    if any(evaluation.pooled_curve for evaluation in evaluations):
        panels.append(_curve_panel(runs, None, len(panels) + 1, None))
    return panels


def confusion_panels(runs: Sequence[Run]) -> list[Panel]:
    """Row-normalized confusion matrix of each run, in percent of the true class."""
    return [
        _confusion_panel(run, run.evaluation, f"confusion_{place}_{slug(run.label)}")
        for place, run in enumerate(runs, start=1)
        if run.evaluation
    ]


def soft_answer_panels(runs: Sequence[Run]) -> list[Panel]:
    """Mean answer of a teacher for the pixels of each true class, in percent, at the temperature it teaches with."""
    return [
        _matrix_panel(
            run,
            np.array(answers.matrix, dtype=np.float64),
            f"soft_answers_{place}_{slug(run.label)}",
            subject=f"Mean answer in %, temperature {answers.temperature:g}",
            xlabel="answered",
            alt=f"Mean answers of {run.label}. Probability of each true class",
        )
        for place, run in enumerate(runs, start=1)
        if run.evaluation and (answers := run.evaluation.soft_answers)
    ]


def calibration_panels(runs: Sequence[Run]) -> list[Panel]:
    """Accuracy over confidence (reliability diagram), and the share of pixels over confidence."""
    bins = [(run, _filled_bins(run.evaluation)) for run in runs if run.evaluation]
    shown = [(run, filled, DASHES[place % len(DASHES)]) for place, (run, filled) in enumerate(bins) if filled.size]
    if not shown:
        return []

    def draw_reliability(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=LIGHT.muted, linewidth=1, linestyle=(0, (1, 2)), label="as sure as right")
        for run, filled, style in shown:
            _draw_bins(axes, filled, color=LIGHT.color(run), style=style, label=f"{run.label}  ECE {_error(run)}")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="confidence", ylabel="share that is right")

    def draw_confidence(axes: Axes) -> None:
        for run, (confidence, _, count), style in shown:
            shares, color = count / count.sum(), LIGHT.color(run)
            look: dict[str, Any] = {"linestyle": style, "linewidth": 1.8, "marker": "o", "markersize": 4}
            axes.plot(confidence, shares, color=color, label=run.label, **look)
        axes.set(xlim=(0, 1.02), ylim=(0, None), xlabel="confidence", ylabel="share of pixels")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))

    errors = "; ".join(f"{run.label} {_error(run)}" for run, _, _ in shown)
    alt = f"Share of right pixels over confidence. Expected calibration error: {errors}."
    note = "Below the dotted line a model is surer than it is right. The fainter, the fewer pixels."
    size, leaking = (3.8, 3.6), any(run.leaking for run in runs)
    return [
        Panel("reliability", "Reliability", alt, draw_reliability, size, note, leaking=leaking),
        Panel("confidence", "How sure", "Share of pixels over confidence.", draw_confidence, size, leaking=leaking),
    ]


def _filled_bins(evaluation: EvaluationRecord) -> NDArray[np.float64]:
    """Return confidence, accuracy and count (3, n) of the bins that hold pixels."""
    bins = [(entry.confidence, entry.accuracy, entry.count) for entry in evaluation.calibration.bins]
    return np.array([entry for entry in bins if None not in entry and entry[2]], dtype=np.float64).T


def _error(run: Run) -> str:
    return formatting.score(run.evaluation.calibration.expected_calibration_error if run.evaluation else None)


def _draw_bins(axes: Axes, bins: NDArray[np.float64], *, color: str, style: Dash, label: str) -> None:
    """Draw accuracy over confidence, the fainter the fewer pixels are as sure."""
    confidence, accuracy, count = bins
    strengths = FAINTEST + (1 - FAINTEST) * np.sqrt(count / count.max())
    points = list(zip(confidence, accuracy, strict=True))
    colors = [to_rgba(color, strength) for strength in strengths]
    between = [to_rgba(color, min(pair)) for pair in pairwise(strengths)]
    axes.add_collection(LineCollection(list(pairwise(points)), colors=between, linestyles=[style], linewidths=1.8))
    axes.scatter(confidence, accuracy, s=16, c=colors, linewidths=0, zorder=2)
    axes.plot([], [], marker="o", color=color, linestyle=style, linewidth=1.8, markersize=4, label=label)


def _interval_panel(shown: Sequence[Run]) -> Panel:
    def draw(axes: Axes) -> None:
        for row, run in enumerate(shown):
            color, value = LIGHT.color(run), run.mean_iou or 0.0
            if run.interval:
                axes.plot(run.interval, [row, row], color=color, linewidth=6, alpha=0.35, solid_capstyle="round")
            axes.plot([value], [row], "o", color=color, markersize=9)
            text = formatting.score(value)
            axes.annotate(text, (value, row), (0, 8), textcoords="offset points", ha="center", fontsize=9.5)
        axes.set_yticks(range(len(shown)), [_short(run.label) for run in shown])
        axes.tick_params(axis="y", labelcolor=LIGHT.ink)
        axes.set_ylim(len(shown) - 0.5, -0.8)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("mean IoU")

    values = [f"{run.label} {formatting.score(run.mean_iou)} ({formatting.interval(run.interval)})" for run in shown]
    alt = f"Mean IoU with bootstrap interval: {'; '.join(values)}."
    size, leaking = (4.2, max(2.0, 0.9 + 0.5 * len(shown))), any(run.leaking for run in shown)
    return Panel("mean_iou", "Mean IoU with its interval", alt, draw, size, leaking=leaking)


def _cost_panel(shown: Sequence[Run], costs: Sequence[float], key: str, title: str, unit: str) -> Panel:
    def draw(axes: Axes) -> None:
        for run, cost in zip(shown, costs, strict=True):
            color = LIGHT.color(run)
            if run.interval:
                axes.plot([cost, cost], run.interval, color=color, linewidth=6, alpha=0.35, solid_capstyle="round")
            axes.plot([cost], [run.mean_iou or 0.0], "o", color=color, markersize=9, label=run.label)
        plain_logarithmic(axes)
        axes.set(xlabel=f"{unit} (logarithmic)", ylabel="mean IoU")
        axes.margins(x=0.15, y=0.12)

    values = [
        f"{run.label} {formatting.score(run.mean_iou)} at {cost:,.3g}" for run, cost in zip(shown, costs, strict=True)
    ]
    alt = f"Mean IoU over {unit}: {'; '.join(values)}."
    size, leaking = (4.2, max(2.4, 0.9 + 0.5 * len(shown))), any(run.leaking for run in shown)
    return Panel(f"mean_iou_over_{key}", title, alt, draw, size, leaking=leaking)


def _curve_panel(runs: Sequence[Run], class_name: str | None, place: int, color: str | None) -> Panel:
    """Return the curves of a class; of all (pixel, class) pairs together where none is named."""
    name = class_name or "All classes pooled"
    curves = [
        (run, curve, f"{run.label}  AP {formatting.score(curve.average_precision)}")
        for run in runs
        if run.evaluation
        for curve in (run.evaluation.curves if class_name else (run.evaluation.pooled_curve,))
        if curve is not None and curve.recall and class_name in (None, curve.name)
    ]

    def draw(axes: Axes) -> None:
        for number, (run, curve, text) in enumerate(curves):
            style = DASHES[number % len(DASHES)]
            color = LIGHT.color(run)
            axes.plot(curve.recall, curve.precision, color=color, linestyle=style, linewidth=1.9, label=text)
        axes.set(xlim=(-0.01, 1.02), ylim=(-0.02, 1.04), xlabel="recall", ylabel="precision")

    values = "; ".join(text.replace("  AP", "") for _, _, text in curves)
    alt = f"Precision over recall for {name}. Average precision: {values}."
    key, leaking = f"precision_recall_{place}_{slug(name)}", any(run.leaking for run in runs)
    return Panel(key, name, alt, draw, color=color, leaking=leaking, subject="Precision and recall")


def _confusion_panel(run: Run, evaluation: EvaluationRecord, key: str) -> Panel:
    counts = np.array(evaluation.confusion, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    alt = f"Confusion matrix of {run.label}. Share found of each true class"
    return _matrix_panel(run, shares, key, subject="Confusion in %", xlabel="predicted", alt=alt)


def _matrix_panel(run: Run, shares: NDArray[np.float64], key: str, *, subject: str, xlabel: str, alt: str) -> Panel:
    """Draw shares (C, C) of true classes, one a row, NaN where a class is absent."""
    names = run.evaluation.class_names if run.evaluation else ()
    many = len(names) > MANY_CLASSES
    recalls = [
        f"{name} absent" if np.isnan(share) else f"{name} {100 * share:.0f} %"
        for name, share in zip(names, shares.diagonal(), strict=True)
    ]

    def draw(axes: Axes) -> None:
        letters = 8.5 if many else 10.5
        cells = [Rectangle((column - 0.47, row - 0.47), 0.94, 0.94) for row, column in np.ndindex(shares.shape)]
        colors = [to_rgba(LIGHT.cell, strength) for strength in np.nan_to_num(0.06 + 0.94 * shares).ravel()]
        axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
        for (row, column), share in np.ndenumerate(shares):
            text = formatting.NOTHING if np.isnan(share) else f"{100 * share:.0f}"
            text = "" if text == "0" and many else text  # a large matrix reads better with empty cells
            weight = "bold" if row == column else "normal"
            number = axes.text(column, row, text, ha="center", va="center", fontsize=letters, fontweight=weight)
            number.set_in_layout(False)
        shown, places = [_short(name) for name in names], range(len(names))
        axes.set_xticks(places, shown, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, shown)
        axes.tick_params(labelcolor=LIGHT.ink, labelsize=letters)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel=xlabel, ylabel="true")
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    alt = f"{alt}: {'; '.join(recalls)}."
    side = max(3.6, 1.5 + 0.45 * len(names))
    size = (side + 0.4, side)
    return Panel(key, run.label, alt, draw, size, wide=many, leaking=run.leaking, subject=subject)


def _short(name: str) -> str:
    return name if len(name) <= LONG_NAME else f"{name[: LONG_NAME - 1]}…"


def _training_panel(runs: Sequence[Run], key: str, title: str, *columns: str) -> Panel:
    shown = [(run, column) for run in runs for column in columns if column in run.metrics]

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        for run, column in sorted(shown, key=lambda pair: _is_training(pair[1])):
            epochs, values = run.metrics[column]
            axes.plot(
                epochs,
                values,
                color=LIGHT.color(run),
                linestyle=(0, (1.3, 1.3)) if _is_training(column) else "-",
                linewidth=1.8,
                label=None if run.label in named else run.label,
                marker="o" if len(epochs) < FEW_POINTS else None,
            )
            named.add(run.label)
        everything = np.concatenate([run.metrics[column][1] for run, column in shown])
        if everything.min() > 0 and everything.max() / everything.min() > STEEP:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        both = len({_is_training(column) for _, column in shown}) > 1
        axes.set_xlabel("epoch (dotted: training)" if both else "epoch")

    changes = [
        f"{run.label}, {'training' if _is_training(column) else 'validation'}, from {run.metrics[column][1][0]:.3g} "
        f"to {run.metrics[column][1][-1]:.3g}"
        for run, column in shown
    ]
    leaking = MEAN_IOU in columns and any(run.leaking for run, _ in shown)
    return Panel(key, title, f"{title} over epochs: {'; '.join(changes)}.", draw, leaking=leaking)


def _is_training(column: str) -> bool:
    return column.startswith("train/")
