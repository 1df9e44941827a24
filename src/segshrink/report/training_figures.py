"""Figures of training: each loss term and validation mean IoU over epochs, all runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from segshrink.report.panels import LIGHT, Panel, slug
from segshrink.report.runs import Run

MEAN_IOU = "val/mean_iou"
# A loss that falls by more than this factor is drawn on a logarithmic axis.
STEEP = 30
# Curves of fewer points show each of them: the mIoU of whole scenes isn't measured after every epoch.
FEW = 10


def training_panels(runs: Sequence[Run]) -> list[Panel]:
    """Loss, validation mean IoU, and each term of the loss; a term is on one panel for all runs."""
    columns = dict.fromkeys(column for run in runs for column in run.metrics if column != MEAN_IOU)
    stages = [column.partition("/") for column in columns]
    terms = dict.fromkeys(term for stage, _, term in stages if stage in ("train", "val") and term)
    panels = []
    for term in sorted(terms, key=lambda term: term != "loss"):
        title = "Loss" if term == "loss" else f"Loss term: {term.replace('_', ' ')}"
        key = "loss" if term == "loss" else f"loss_{slug(term)}"
        panels.append(_panel(runs, key, title, f"train/{term}", f"val/{term}"))
    if any(MEAN_IOU in run.metrics for run in runs):
        panels.insert(min(1, len(panels)), _panel(runs, "validation_mean_iou", "Validation mean IoU", MEAN_IOU))
    return panels


def _panel(runs: Sequence[Run], key: str, title: str, *columns: str) -> Panel:
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
                marker="o" if len(epochs) < FEW else None,
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
