"""Results as tables: the comparison of runs, and the scores of one evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from segshrink.classes import format_color
from segshrink.cli._console import out_console, tell
from segshrink.report import collect
from segshrink.report.comparison import Cell, table
from segshrink.report.selection import labels
from segshrink.report.summary import headline, speed_notices

if TYPE_CHECKING:
    from segshrink.evaluation import Evaluation


# What a terminal shows of a model's accuracy; the page shows more.
_ACCURACY = ("mean_iou", "accuracy")


def print_comparison(page: Path, runs: Sequence[Path] | None = None) -> None:
    """Print the table and the sentence of a report, and where its page is.

    Args:
        page: The report.
        runs: Run folders it is about; by default the folder that it lies in.
    """
    found = collect(list(runs) if runs else [page.parent])
    comparison = Table(title_justify="left")
    comparison.add_column("")
    for label in labels(found):
        comparison.add_column(label, justify="right")
    for group in table(found):
        for row in group.rows:
            if group.title == "Accuracy" and row.key not in _ACCURACY:
                continue
            name = Text.assemble(("■ ", row.color), row.label) if row.color else Text(row.label)
            comparison.add_row(name, *(_cell(cell) for cell in row.cells))
        comparison.add_section()
    console = out_console()
    console.print(comparison)
    for notice in speed_notices(found):
        tell(f"{notice.title[:1].lower()}{notice.title[1:]}: {notice.text}")
    said = headline(found)
    console.print(" ".join(part for part in (said.sentence, said.caveat) if part), markup=False)
    console.print(f"report: {page}", markup=False)


def print_scores(evaluation: Evaluation) -> None:
    """Print an evaluation's scores of each class and of all."""
    scores = evaluation.scores
    per_class = Table(title_justify="left")
    per_class.add_column("class")
    for name in ("IoU", "precision", "recall", "F1"):
        per_class.add_column(name, justify="right")
    columns = (scores.iou, scores.precision, scores.recall, scores.f1)
    classes = evaluation.classes
    for number, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        label = Text.assemble(("■ ", format_color(color)), name)
        per_class.add_row(label, *(_number(column[number]) for column in columns))
    console = out_console()
    console.print(per_class)
    low, high = evaluation.interval.low, evaluation.interval.high
    leaking = " (the split leaks: these scores are too good)" if evaluation.leaking else ""
    console.print(
        f"mIoU {_number(scores.mean_iou)} ({evaluation.interval.level:.0%} interval over images {_number(low)} to "
        f"{_number(high)}), accuracy {_number(scores.accuracy)}, mean accuracy {_number(scores.mean_accuracy)}, "
        f"kappa {_number(scores.kappa)}; {evaluation.data}, {evaluation.split} split, {len(evaluation.per_image)} "
        f"images, {evaluation.pixels:,} labelled pixels{leaking}",
        markup=False,
    )
    if evaluation.never_predicted:
        console.print(f"never predicted: {', '.join(evaluation.never_predicted)}", style="bold red", markup=False)


def _cell(cell: Cell) -> Text:
    below = ((text, style) for text, style in ((cell.interval, "dim"), (cell.doubt, "red")) if text)
    return Text.assemble(cell.text, *((f"\n{text}", style) for text, style in below))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
