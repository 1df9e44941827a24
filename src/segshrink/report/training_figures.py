"""Figures of training: each loss term and validation mean IoU over epochs, all runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from segshrink.report.collect import Run
from segshrink.report.panels import SIZE, Panel, slug
from segshrink.report.selection import labels, leaking
from segshrink.report.themes import legend, new_figure, run_colors

MEAN_IOU = "val/mean_iou"
# A loss that falls by more than this factor is drawn on a logarithmic axis.
STEEP = 30
# Curves of fewer points show each of them: the mIoU of whole scenes isn't measured after every epoch.
FEW = 10


def training_panels(runs: Sequence[Run]) -> list[Panel]:
    """Loss, validation mean IoU, and each term of the loss; a term is on one panel for all runs."""
    terms: dict[str, None] = {}
    for run in runs:
        for column in run.metrics:
            stage, _, term = column.partition("/")
            if stage in ("train", "val") and term and column != MEAN_IOU:
                terms.setdefault(term)
    panels = [_panel(runs, f"train/{term}", f"val/{term}") for term in sorted(terms, key=lambda term: term != "loss")]
    if any(MEAN_IOU in run.metrics for run in runs):
        panels.insert(min(1, len(panels)), _panel(runs, MEAN_IOU))
    return panels


def _panel(runs: Sequence[Run], *columns: str) -> Panel:
    term = columns[0].partition("/")[2]
    title = {"loss": "Loss", "mean_iou": "Validation mean IoU"}.get(term, f"Loss term: {term.replace('_', ' ')}")
    key = "validation_mean_iou" if term == "mean_iou" else "loss" if term == "loss" else f"loss_{slug(term)}"
    shown = [
        (name, run, color, column)
        for name, run, color in zip(labels(runs), runs, run_colors(runs), strict=True)
        for column in columns
        if column in run.metrics
    ]

    def draw(panel_title: str | None) -> Figure:
        figure, axes = new_figure(*SIZE, panel_title)
        named: set[str] = set()
        for name, run, color, column in sorted(shown, key=lambda one: one[3].startswith("train/")):
            epochs, values = run.metrics[column]
            style = (0, (1.3, 1.3)) if column.startswith("train/") else "-"
            label = None if name in named else name
            named.add(name)
            few = "o" if len(epochs) < FEW else None
            axes.plot(epochs, values, color=color, linestyle=style, linewidth=1.8, label=label, marker=few)
        everything = np.concatenate([run.metrics[column][1] for _, run, _, column in shown])
        if everything.min() > 0 and everything.max() / everything.min() > STEEP:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        both = len({column.partition("/")[0] for _, _, _, column in shown}) > 1
        axes.set_xlabel("epoch (dotted: training)" if both else "epoch")
        legend(axes)
        return figure

    changes = [
        f"{name}, {'training' if column.startswith('train/') else 'validation'}, from {run.metrics[column][1][0]:.3g} "
        f"to {run.metrics[column][1][-1]:.3g}"
        for name, run, _, column in shown
    ]
    leaks = term == "mean_iou" and leaking([run for _, run, _, _ in shown])
    return Panel(key, title, f"{title} over epochs: {'; '.join(changes)}.", draw, leaking=leaks)
