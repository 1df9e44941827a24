"""Precision, recall, F1 and true pixels of each class with their means, and the areas that classes cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segshrink import formatting
from segshrink.report.comparison import Cell, Measure, Row, class_colors
from segshrink.report.runs import Run
from segshrink.scores import scores_of

_SCORES = {"precision": "Precision (user’s accuracy)", "recall": "Recall (producer’s accuracy)", "f1": "F1"}
_MEANS = {"macro": "Macro mean", "weighted": "Weighted mean"}
_AREAS = {"area": "Area on the maps", "adjusted_area": "Area, corrected by the maps’ errors"}


def class_rows(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """Return the rows by the title of their group; scores agree with scikit-learn's ``classification_report``."""
    numbers = [_numbers(run) for run in runs]
    groups: dict[str, list[Measure]] = {}
    colors = class_colors(runs)
    for key, title in _SCORES.items():
        groups[title] = [Measure(f"{key}/{name}", name, color=color) for name, color in colors.items()]
        groups[title] += [Measure(f"{mean}_{key}", label) for mean, label in _MEANS.items()]
    groups["Support"] = [
        Measure(f"support/{name}", name, text=formatting.count, color=color) for name, color in colors.items()
    ]
    for key, title in _AREAS.items():
        groups[title] = [
            Measure(f"{key}/{name}", name, text=formatting.percent, color=color) for name, color in colors.items()
        ]
    rows = {
        title: [Row(measure, tuple(_cell(measure, of_run) for of_run in numbers)) for measure in measures]
        for title, measures in groups.items()
    }
    return {title: of_group for title, of_group in rows.items() if any(map(_is_known, of_group))}


def _is_known(row: Row) -> bool:
    return any(cell.value is not None for cell in row.cells)


def _cell(measure: Measure, numbers: dict[str, tuple[float, str]]) -> Cell:
    value, note = numbers.get(measure.key, (None, ""))
    return Cell(value, measure.text(value), note)


def _numbers(run: Run) -> dict[str, tuple[float, str]]:
    """Return a run's defined numbers by their keys, each with its interval."""
    if (evaluation := run.evaluation) is None:
        return {}
    scores = scores_of(np.array(evaluation.confusion))
    numbers = {
        f"{key}/{name}": (float(value), "")
        for key in (*_SCORES, "support")
        for name, value in zip(evaluation.class_names, getattr(scores, key), strict=True)
    }
    numbers |= {f"{mean}_{key}": (getattr(scores, f"{mean}_{key}"), "") for mean in _MEANS for key in _SCORES}
    for name, area in zip(evaluation.class_names, evaluation.areas, strict=False):
        numbers[f"area/{name}"] = (area.mapped, "")
        numbers[f"adjusted_area/{name}"] = (
            np.nan if area.adjusted is None else area.adjusted,
            formatting.percent_interval(area.low, area.high),
        )
    return {key: entry for key, entry in numbers.items() if not np.isnan(entry[0])}
