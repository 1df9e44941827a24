"""``segshrink tune`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

OPEN = "student.training.learning_rate={log: [1e-3, 1e-1]}"


def test_tune_prints_its_trials_and_report_writes_the_page_again(segshrink: Run, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    arguments = ["tune", recipe, OPEN, "--out", out, "--trials", 2, "--no-control", "--sampler", "random"]
    tuned = segshrink(*arguments)
    assert tuned.status == 0, tuned.err
    study = json.loads((out / "study.json").read_text())
    (student,) = study["studies"]
    for trial in student["trials"]:
        assert f"{trial['values'][0]:.3f}" in tuned.out
    assert "0 (recipe)" in tuned.out
    assert "learning rate 0.0" in tuned.out
    assert "…" not in tuned.out  # nothing is cut off
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    again = segshrink("report", out)
    assert again.status == 0, again.err
    assert (out / "report.html").read_bytes() == page
    printed = segshrink("report", out, "--json")
    assert printed.status == 0, printed.err
    assert json.loads(printed.out) == study
    assert segshrink(*arguments).sentence.endswith("or choose another folder")
    assert segshrink("distill", out / "best.yaml", "--out", tmp_path / "best", "student.training.epochs=1").status == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--timeout", "soon"), "30m"),
        (("--sampler", "tpee"), "tpe"),
        (("--objective", "miou,speed"), "latency"),
        (("--sampler", "grid"), "grid"),
        (("--storage", "sqlite:///study.db", "--workers", 2), "PostgreSQL"),
    ],
)
def test_wrong_options_end_with_a_remedy(
    segshrink: Run, recipe: Path, tmp_path: Path, wrong: tuple[object, ...], named: str
) -> None:
    result = segshrink("tune", recipe, OPEN, "--out", tmp_path / "study", *wrong)
    assert result.status == 2
    assert named in result.sentence
    assert not (tmp_path / "study").exists()
