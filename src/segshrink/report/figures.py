"""Figures of accuracy: intervals, accuracy over cost, precision-recall curves, confusion, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from segshrink import formatting
from segshrink.report.collect import CalibrationBin, Curve, Evaluation, Run
from segshrink.report.panels import SIZE, Panel, slug
from segshrink.report.selection import comparable, focus, labels, leaking, same_machine
from segshrink.report.themes import DASHES, LIGHT, Dash, Draw, legend, new_figure, run_colors

# How much of its color a bin of hardly any pixels keeps.
FAINTEST = 0.12


def summary_panels(runs: Sequence[Run]) -> list[Panel]:
    """Mean IoU of each run with its bootstrap interval, and mean IoU over what a run costs."""
    main = focus(runs)
    named = zip(labels(runs), runs, run_colors(runs), strict=True)
    shown = [one for one in named if _score(one[1]) is not None and (one[1] is main or comparable(one[1], main))]
    if len(shown) < 2:
        return []
    panels = [_interval_panel(shown)]
    timed = [(name, run, color) for name, run, color in shown if run is main or same_machine(run, main)]
    if len(timed) > 1 and all(run.profile and run.profile.latency_median for _, run, _ in timed):
        costs = [(run.profile.latency_median if run.profile else None) or 0.0 for _, run, _ in timed]
        panels.append(_cost_panel(timed, "latency", "CPU latency in ms", costs))
    elif all(run.parameters for _, run, _ in shown):
        panels.append(_cost_panel(shown, "parameters", "parameters", [run.parameters or 0 for _, run, _ in shown]))
    return panels


def curve_panels(runs: Sequence[Run]) -> list[Panel]:
    """One-vs-rest precision-recall curves, one panel for each class, all runs on it."""
    order: dict[str, str] = {}
    for run in runs:
        known = {entry.name: entry.color for entry in run.evaluation.classes} if run.evaluation else {}
        for curve in run.evaluation.curves if run.evaluation else ():
            if curve.recall:
                order.setdefault(curve.name, known.get(curve.name, "#808080"))
    return [_curve_panel(runs, name, place, color) for place, (name, color) in enumerate(order.items())]


def confusion_panels(runs: Sequence[Run]) -> list[Panel]:
    """Row-normalised confusion matrix of each run, in per cent of the true class."""
    panels = []
    for place, (label, run) in enumerate(zip(labels(runs), runs, strict=True)):
        if run.evaluation:
            alt = f"Confusion matrix of {label}. Share found of each true class: {_diagonal(run.evaluation)}."
            draw = _confusion_drawing(run.evaluation)
            wide = len(run.evaluation.classes) > 8
            key = f"confusion_{place + 1}_{slug(label)}"
            leaks = run.evaluation.leaking
            panels.append(Panel(key, label, alt, draw, wide=wide, leaking=leaks, subject="Confusion in %"))
    return panels


def calibration_panels(runs: Sequence[Run]) -> list[Panel]:
    """Accuracy over confidence (reliability diagram), and the share of pixels over confidence."""
    named = zip(labels(runs), runs, run_colors(runs), strict=True)
    shown = [(name, run.evaluation, color) for name, run, color in named if run.evaluation and run.evaluation.bins]
    if not shown:
        return []

    def draw_reliability(title: str | None) -> Figure:
        figure, axes = new_figure(SIZE[0], 3.6, title)
        axes.plot([0, 1], [0, 1], color=LIGHT.muted, linewidth=1, linestyle=(0, (1, 2)), label="as sure as right")
        for place, (name, evaluation, color) in enumerate(shown):
            text = f"{name}  ECE {formatting.score(evaluation.calibration_error)}"
            _draw_bins(axes, evaluation.bins, color=color, style=DASHES[place % len(DASHES)], label=text)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="confidence", ylabel="share that is right")
        legend(axes)
        return figure

    def draw_confidence(title: str | None) -> Figure:
        figure, axes = new_figure(SIZE[0], 3.6, title)
        for place, (name, evaluation, color) in enumerate(shown):
            total = sum(one.count for one in evaluation.bins)
            x = [one.confidence for one in evaluation.bins]
            y = [one.count / total for one in evaluation.bins]
            style = DASHES[place % len(DASHES)]
            axes.plot(x, y, marker="o", color=color, linestyle=style, linewidth=1.8, markersize=4, label=name)
        axes.set(xlim=(0, 1.02), ylim=(0, None), xlabel="confidence", ylabel="share of pixels")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))
        legend(axes)
        return figure

    errors = "; ".join(f"{name} {formatting.score(one.calibration_error)}" for name, one, _ in shown)
    leaks = leaking(runs)
    return [
        Panel(
            "reliability",
            "Reliability",
            f"Share of right pixels over confidence. Expected calibration error: {errors}.",
            draw_reliability,
            "Below the dotted line a model is surer than it is right. The fainter, the fewer pixels.",
            leaking=leaks,
        ),
        Panel("confidence", "How sure", "Share of pixels over confidence.", draw_confidence, leaking=leaks),
    ]


def _draw_bins(axes: Axes, bins: Sequence[CalibrationBin], *, color: str, style: Dash, label: str) -> None:
    """Draw accuracy over confidence, the fainter the fewer pixels are as sure."""
    counts = np.array([one.count for one in bins], dtype=np.float64)
    strengths = FAINTEST + (1 - FAINTEST) * np.sqrt(counts / counts.max())
    points = [(one.confidence, one.accuracy) for one in bins]
    colors = [to_rgba(color, strength) for strength in strengths]
    between = [to_rgba(color, min(pair)) for pair in pairwise(strengths)]
    axes.add_collection(LineCollection(list(pairwise(points)), colors=between, linestyles=[style], linewidths=1.8))
    x, y = zip(*points, strict=True)
    axes.scatter(x, y, s=16, c=colors, linewidths=0, zorder=2)
    axes.plot([], [], marker="o", color=color, linestyle=style, linewidth=1.8, markersize=4, label=label)


def _score(run: Run) -> float | None:
    return run.evaluation.scores.get("mean_iou") if run.evaluation else None


def _interval(run: Run) -> tuple[float, float] | None:
    return run.evaluation.interval if run.evaluation else None


def _interval_panel(shown: Sequence[tuple[str, Run, str]]) -> Panel:
    def draw(title: str | None) -> Figure:
        figure, axes = new_figure(SIZE[0] + 0.4, max(2.0, 0.9 + 0.5 * len(shown)), title)
        for row, (_, run, color) in enumerate(shown):
            value, bounds = _score(run) or 0.0, _interval(run)
            if bounds:
                axes.plot(bounds, [row, row], color=color, linewidth=6, alpha=0.35, solid_capstyle="round")
            axes.plot([value], [row], "o", color=color, markersize=9)
            text = formatting.score(value)
            axes.annotate(text, (value, row), (0, 8), textcoords="offset points", ha="center", fontsize=9.5)
        axes.set_yticks(range(len(shown)), [_short(name) for name, _, _ in shown])
        axes.tick_params(axis="y", labelcolor=LIGHT.ink)
        axes.set_ylim(len(shown) - 0.5, -0.8)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("mean IoU")
        return figure

    values = [
        f"{name} {formatting.score(_score(run))} ({formatting.interval(_interval(run))})" for name, run, _ in shown
    ]
    alt = f"Mean IoU with bootstrap interval: {'; '.join(values)}."
    return Panel("mean_iou", "Mean IoU with its interval", alt, draw, leaking=leaking([run for _, run, _ in shown]))


def _cost_panel(shown: Sequence[tuple[str, Run, str]], key: str, unit: str, costs: Sequence[float]) -> Panel:
    def draw(title: str | None) -> Figure:
        figure, axes = new_figure(SIZE[0] + 0.4, max(2.4, 0.9 + 0.5 * len(shown)), title)
        for (name, run, color), cost in zip(shown, costs, strict=True):
            value, bounds = _score(run) or 0.0, _interval(run)
            if bounds:
                axes.plot([cost, cost], bounds, color=color, linewidth=6, alpha=0.35, solid_capstyle="round")
            axes.plot([cost], [value], "o", color=color, markersize=9, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:,.12g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=f"{unit} (logarithmic)", ylabel="mean IoU")
        axes.margins(x=0.15, y=0.12)
        legend(axes)
        return figure

    values = [
        f"{name} {formatting.score(_score(run))} at {cost:,.3g}"
        for (name, run, _), cost in zip(shown, costs, strict=True)
    ]
    title = "Accuracy over latency" if key == "latency" else "Accuracy over size"
    alt = f"Mean IoU over {unit}: {'; '.join(values)}."
    return Panel(f"mean_iou_over_{key}", title, alt, draw, leaking=leaking([run for _, run, _ in shown]))


def _curve_panel(runs: Sequence[Run], name: str, place: int, color: str) -> Panel:
    found: list[tuple[str, Curve, str]] = []
    for label, run, line in zip(labels(runs), runs, run_colors(runs), strict=True):
        curves = run.evaluation.curves if run.evaluation else ()
        found += [(label, curve, line) for curve in curves if curve.name == name and curve.recall][:1]

    def draw(title: str | None) -> Figure:
        figure, axes = new_figure(*SIZE, title)
        for drawn, (label, curve, line) in enumerate(found):
            text = f"{label}  AP {formatting.score(curve.average_precision)}"
            style = DASHES[drawn % len(DASHES)]
            axes.plot(curve.recall, curve.precision, color=line, linestyle=style, linewidth=1.9, label=text)
        axes.set(xlim=(-0.01, 1.02), ylim=(-0.02, 1.04), xlabel="recall", ylabel="precision")
        legend(axes)
        return figure

    values = [f"{label} {formatting.score(curve.average_precision)}" for label, curve, _ in found]
    alt = f"Precision over recall for {name}. Average precision: {'; '.join(values)}."
    key = f"precision_recall_{place + 1}_{slug(name)}"
    return Panel(key, name, alt, draw, color=color, leaking=leaking(runs), subject="Precision and recall")


def _confusion_drawing(evaluation: Evaluation) -> Draw:
    names = [_short(entry.name) for entry in evaluation.classes]
    total = evaluation.confusion.sum(axis=1, keepdims=True)
    shares = np.divide(evaluation.confusion, total, out=np.full_like(evaluation.confusion, np.nan), where=total > 0)

    def draw(title: str | None) -> Figure:
        side = max(3.6, 1.5 + 0.45 * len(names))
        figure, axes = new_figure(side + 0.4, side, title)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        letters = 10.5 if len(names) <= 8 else 8.5
        cells: list[Rectangle] = []
        colors: list[tuple[float, float, float, float]] = []
        for (row, column), share in np.ndenumerate(shares):
            known = not np.isnan(share)
            strength = 0.06 + 0.94 * float(share) if known else 0.0
            cells.append(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94))
            colors.append(to_rgba(LIGHT.cell, strength))
            text = f"{100 * share:.0f}" if known else formatting.NOTHING
            text = "" if text == "0" and len(names) > 8 else text  # a large matrix reads better with empty cells
            weight = "bold" if row == column else "normal"
            number = axes.text(column, row, text, ha="center", va="center", fontsize=letters, fontweight=weight)
            number.set_in_layout(False)
        axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelcolor=LIGHT.ink, labelsize=letters)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.set_aspect("equal")
        return figure

    return draw


def _diagonal(evaluation: Evaluation) -> str:
    total = evaluation.confusion.sum(axis=1)
    found = evaluation.confusion.diagonal()
    return "; ".join(
        f"{entry.name} {100 * right / pixels:.0f} %" if pixels else f"{entry.name} absent"
        for entry, right, pixels in zip(evaluation.classes, found, total, strict=True)
    )


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"
