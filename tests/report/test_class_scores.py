"""Precision, recall, F1, support and area of each class, on the page, in the JSON and in the Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segshrink.report import collect
from segshrink.report import report as write_report
from segshrink.report.class_scores import class_rows
from segshrink.scores import scores_of

Writer = Callable[..., Path]


def test_rows_are_the_scores_of_each_runs_confusion_matrix(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path)])
    rows = {row.measure.key: [cell.value for cell in row.cells] for group in class_rows(runs).values() for row in group}
    scores = [scores_of(np.array(run.evaluation.confusion)) for run in runs]
    for place, name in enumerate(runs[0].evaluation.class_names):
        for key in ("precision", "recall", "f1", "support"):
            assert rows[f"{key}/{name}"] == pytest.approx([getattr(of_run, key)[place] for of_run in scores])
        assert rows[f"area/{name}"] == [run.evaluation.areas[place].mapped for run in runs]
        assert rows[f"adjusted_area/{name}"] == [run.evaluation.areas[place].adjusted for run in runs]
    for mean in ("macro", "weighted"):
        for key in ("precision", "recall", "f1"):
            assert rows[f"{mean}_{key}"] == pytest.approx([getattr(of_run, f"{mean}_{key}") for of_run in scores])


def test_a_class_that_is_never_predicted_has_no_precision_but_counts_in_the_mean(
    tmp_path: Path, write_run: Writer
) -> None:
    runs = collect([write_run(tmp_path, "model", dead=(3,))])
    rows = {row.measure.key: row.cells[0] for group in class_rows(runs).values() for row in group}
    assert (rows["precision/Vegetation"].value, rows["precision/Vegetation"].text) == (None, "–")
    others = [rows[f"precision/{name}"].value for name in ("Building", "Land", "Road", "Water")]
    assert rows["macro_precision"].value == pytest.approx(sum(others) / 5)


def test_evaluations_of_older_versions_have_the_same_rows_without_areas(tmp_path: Path, write_run: Writer) -> None:
    folder = write_run(tmp_path, "model", images=2)
    file = folder / "evaluation.json"
    content = json.loads(file.read_text())
    for key in ("areas", "pooled_curve", "soft_answers"):
        del content[key]
    file.write_text(json.dumps(content))
    groups = class_rows(collect([folder]))
    assert [len(rows) for rows in groups.values()] == [7, 7, 7, 5]
    write_report([folder])


@pytest.mark.usefixtures("quick_figures")
def test_the_report_has_them_in_json_and_markdown(tmp_path: Path, write_student_run: Writer) -> None:
    page = write_report([write_student_run(tmp_path, name="a|b <i>c</i>")])
    rows = {row["key"]: row["values"] for row in json.loads(page.with_suffix(".json").read_text())["rows"]}
    assert {"precision/Water", "macro_f1", "weighted_recall", "support/Land", "adjusted_area/Road"} <= rows.keys()
    text = page.with_suffix(".md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1, "every row has as many cells"
    assert any(f"{rows['recall/Water'][0]:.3f}" in line for line in table if line.startswith("| Water"))
    assert "<i>" not in text
    for file in (part.partition(")")[0] for part in text.split("](")[1:]):
        assert (page.parent / file).is_file()
