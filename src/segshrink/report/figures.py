"""The figures: one small panel for each subject, so that they read on a phone as well as on a desk."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segshrink.report import wording
from segshrink.report.collect import Evaluation, Run
from segshrink.report.comparison import labels
from segshrink.report.themes import DASHES, Theme, legend, new_figure, run_colors

PANEL = (4.6, 3.3)


@dataclass(frozen=True)
class Panel:
    """One figure: ``key`` is its file name, ``wide`` one that scrolls on a phone rather than shrinks."""

    key: str
    title: str
    alt: str
    draw: Callable[[Theme, str | None], Figure]
    note: str = ""
    wide: bool = False
    color: str | None = None
    leaking: bool = False


def interval_panel(runs: Sequence[Run]) -> list[Panel]:
    """Mean IoU of each run as a dot with its bootstrap interval."""
    shown = [run for run in runs if run.evaluation and run.evaluation.scores.get("mean_iou") is not None]
    if len(shown) < 2:
        return []
    names = [label for label, run in zip(labels(runs), runs, strict=True) if run in shown]

    def draw(theme: Theme, title: str | None) -> Figure:
        figure, axes = new_figure(theme, 7.2, 0.75 + 0.5 * len(shown), title)
        colors = [color for color, run in zip(run_colors(runs, theme), runs, strict=True) if run in shown]
        for row, (run, color) in enumerate(zip(shown, colors, strict=True)):
            value = run.evaluation.scores["mean_iou"] if run.evaluation else None
            bounds = run.evaluation.interval if run.evaluation else None
            if value is None:
                continue
            if bounds:
                axes.plot(bounds, [row, row], color=color, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot([value], [row], "o", color=color, markersize=9)
            axes.annotate(
                wording.score(value), (value, row), (0, 9), textcoords="offset points", ha="center", color=theme.ink
            )
        axes.set_yticks(range(len(shown)), names)
        axes.tick_params(axis="y", labelcolor=theme.ink)
        axes.set_ylim(len(shown) - 0.5, -0.7)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.set_xlabel("mean IoU")
        return figure

    values = [
        f"{name} {wording.score(run.evaluation.scores['mean_iou'])} ({wording.interval(run.evaluation.interval)})"
        for name, run in zip(names, shown, strict=True)
        if run.evaluation
    ]
    alt = f"Mean IoU with bootstrap interval: {'; '.join(values)}."
    return [Panel("mean_iou", "Mean IoU with its interval", alt, draw, leaking=_leaks(shown))]


def training_panels(runs: Sequence[Run]) -> list[Panel]:
    """Loss, each of its terms and validation mean IoU over epochs; a term is on one panel for all runs."""
    terms: dict[str, None] = {}
    for run in runs:
        for column in run.metrics:
            stage, _, term = column.partition("/")
            if stage in ("train", "val") and term and term != "mean_iou":
                terms.setdefault(term)
    ordered = sorted(terms, key=lambda term: term != "loss")
    panels = [
        _training_panel(runs, f"loss_{_slug(term)}", _term_title(term), [f"train/{term}", f"val/{term}"])
        for term in ordered
    ]
    if any("val/mean_iou" in run.metrics for run in runs):
        at = min(1, len(panels))
        panel = _training_panel(runs, "validation_mean_iou", "Validation mean IoU", ["val/mean_iou"])
        panels.insert(at, panel)
    return panels


def curve_panels(runs: Sequence[Run]) -> list[Panel]:
    """One-vs-rest precision-recall curves, one panel for each class, all runs on it."""
    order: dict[str, str] = {}
    for run in runs:
        known = {entry.name: entry.color for entry in run.evaluation.classes} if run.evaluation else {}
        for curve in run.evaluation.curves if run.evaluation else ():
            if curve.recall:
                order.setdefault(curve.name, known.get(curve.name, "#808080"))
    return [_curve_panel(runs, name, index, color) for index, (name, color) in enumerate(order.items())]


def confusion_panels(runs: Sequence[Run]) -> list[Panel]:
    """Row-normalised confusion matrix of each run, in per cent of the true class."""
    panels = []
    for index, (label, run) in enumerate(zip(labels(runs), runs, strict=True)):
        if run.evaluation:
            alt = f"Confusion matrix of {label}. Share found of each true class: {_diagonal(run.evaluation)}."
            draw = _confusion_drawing(run.evaluation)
            wide = len(run.evaluation.classes) > 8
            key = f"confusion_{index + 1}_{_slug(label)}"
            panels.append(Panel(key, label, alt, draw, wide=wide, leaking=run.evaluation.leaking))
    return panels


def reliability_panel(runs: Sequence[Run]) -> list[Panel]:
    """Accuracy over confidence, all runs; the size of a dot is its share of the pixels."""
    shown = [run for run in runs if run.evaluation and run.evaluation.bins]
    if not shown:
        return []
    named = dict(zip(map(id, runs), labels(runs), strict=True))

    def draw(theme: Theme, title: str | None) -> Figure:
        figure, axes = new_figure(theme, 5.2, 4.6, title)
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (2, 2)), label="calibrated")
        colors = dict(zip(map(id, runs), run_colors(runs, theme), strict=True))
        for index, run in enumerate(shown):
            bins = run.evaluation.bins if run.evaluation else ()
            color = colors[id(run)]
            x, y = [one.confidence for one in bins], [one.accuracy for one in bins]
            total = sum(one.count for one in bins)
            axes.plot(x, y, color=color, linestyle=DASHES[index % len(DASHES)], linewidth=1.8, label=named[id(run)])
            axes.scatter(x, y, s=[12 + 160 * one.count / total for one in bins], color=color, alpha=0.75, linewidths=0)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="confidence", ylabel="share that is right")
        legend(axes, theme, loc="upper left")
        return figure

    errors = [f"{named[id(run)]} {wording.score(run.evaluation.calibration_error)}" for run in shown if run.evaluation]
    alt = f"Reliability diagram. Expected calibration error: {'; '.join(errors)}."
    note = "Dots below the dotted line: surer than right. The larger a dot, the more pixels it stands for."
    return [Panel("reliability", "Reliability", alt, draw, note, leaking=_leaks(shown))]


def _training_panel(runs: Sequence[Run], key: str, title: str, columns: list[str]) -> Panel:
    names = labels(runs)
    shown = [run for run in runs if any(column in run.metrics for column in columns)]

    def draw(theme: Theme, panel_title: str | None) -> Figure:
        figure, axes = new_figure(theme, *PANEL, panel_title)
        lowest, highest = np.inf, 0.0
        for run, name, color in zip(runs, names, run_colors(runs, theme), strict=True):
            for column in columns:
                epochs, values = run.metrics.get(column, ((), ()))
                if not epochs:
                    continue
                validated = column.startswith("val/")
                few = "o" if len(epochs) < 3 else None
                style = "-" if validated else (0, (1.5, 1.2))
                label = name if len(columns) == 1 else f"{name}, {'validation' if validated else 'training'}"
                axes.plot(epochs, values, color=color, linestyle=style, linewidth=1.9, label=label, marker=few)
                lowest, highest = min(lowest, *values), max(highest, *values)
        if lowest > 0 and highest / lowest > 30:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("epoch")
        legend(axes, theme, loc="best")
        return figure

    best = []
    for name, run in zip(names, runs, strict=True):
        for column in columns:
            values = run.metrics.get(column, ((), ()))[1]
            if values:
                best.append(f"{name} {column} from {values[0]:.3g} to {values[-1]:.3g}")
    leaking = _leaks(shown) and any(column == "val/mean_iou" for column in columns)
    return Panel(key, title, f"{title} over epochs: {'; '.join(best)}.", draw, leaking=leaking)


def _curve_panel(runs: Sequence[Run], name: str, index: int, color: str) -> Panel:
    found = []
    for label, run in zip(labels(runs), runs, strict=True):
        curves = run.evaluation.curves if run.evaluation else ()
        curve = next((one for one in curves if one.name == name and one.recall), None)
        found.append((label, curve))

    def draw(theme: Theme, title: str | None) -> Figure:
        figure, axes = new_figure(theme, *PANEL, title)
        drawn = 0
        for (label, curve), line in zip(found, run_colors(runs, theme), strict=True):
            if curve is None:
                continue
            text = f"{label}  AP {wording.score(curve.average_precision)}"
            dash = DASHES[drawn % len(DASHES)]
            axes.plot(curve.recall, curve.precision, color=line, linestyle=dash, linewidth=1.9, label=text)
            drawn += 1
        axes.set(xlim=(-0.01, 1.02), ylim=(-0.02, 1.04), xlabel="recall", ylabel="precision")
        legend(axes, theme, loc="lower left")
        return figure

    values = [f"{label} {wording.score(curve.average_precision)}" for label, curve in found if curve]
    alt = f"Precision over recall for {name}. Average precision: {'; '.join(values)}."
    return Panel(f"precision_recall_{index + 1}_{_slug(name)}", name, alt, draw, color=color, leaking=_leaks(runs))


def _confusion_drawing(evaluation: Evaluation) -> Callable[[Theme, str | None], Figure]:
    names = [_short(entry.name) for entry in evaluation.classes]
    total = evaluation.confusion.sum(axis=1, keepdims=True)
    shares = np.divide(evaluation.confusion, total, out=np.full_like(evaluation.confusion, np.nan), where=total > 0)

    def draw(theme: Theme, title: str | None) -> Figure:
        side = max(4.2, 1.6 + 0.55 * len(names))
        figure, axes = new_figure(theme, side + 0.5, side, title)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        small = 10.5 if len(names) <= 8 else 8.5
        for (row, column), share in np.ndenumerate(shares):
            alpha = 0.0 if np.isnan(share) else 0.06 + 0.94 * float(share)
            edge = {"edgecolor": theme.surface, "linewidth": 1.5}
            axes.bar(column, 0.94, 0.94, row - 0.47, color=theme.cell, alpha=alpha, **edge)
            text = wording.NOTHING if np.isnan(share) else f"{100 * share:.0f}"
            weight = "bold" if row == column else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=small, fontweight=weight, color=theme.ink)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelcolor=theme.ink, labelsize=small)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.set_aspect("equal")
        return figure

    return draw


def _diagonal(evaluation: Evaluation) -> str:
    total = evaluation.confusion.sum(axis=1)
    found = evaluation.confusion.diagonal()
    return "; ".join(
        f"{entry.name} {100 * right / all_:.0f} %" if all_ else f"{entry.name} absent"
        for entry, right, all_ in zip(evaluation.classes, found, total, strict=True)
    )


def _leaks(runs: Sequence[Run]) -> bool:
    return any(run.evaluation is not None and run.evaluation.leaking for run in runs)


def _term_title(term: str) -> str:
    return "Loss" if term == "loss" else f"Term: {term.replace('_', ' ')}"


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "unnamed"
