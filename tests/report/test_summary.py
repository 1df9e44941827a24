"""What the page says in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segshrink.report import collect
from segshrink.report.summary import notices, summarize

from .conftest import SKILL

Writer = Callable[..., Path]


def test_sentence_holds_all_three_results_with_intervals(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path)])
    text = summarize(runs)
    assert text.title == "Student, control and teacher on dubai-aerial"
    for run in runs:
        assert run.evaluation is not None
        assert run.interval is not None
        assert f"{run.evaluation.scores.mean_iou:.3f}" in text.sentence
        assert f"{run.interval[0]:.3f}–{run.interval[1]:.3f}" in text.sentence
    assert "points above its control" in text.sentence
    assert "points below its teacher" in text.sentence
    assert "the student is ahead of its control on" in text.caveat


def test_overlapping_intervals_settle_nothing(tmp_path: Path, write_student_run: Writer) -> None:
    wide = summarize(collect([write_student_run(tmp_path / "wide", half_width=0.3)]))
    narrow = summarize(collect([write_student_run(tmp_path / "narrow", half_width=0.001)]))
    assert "does not settle which is better" in wide.caveat
    assert "do not overlap" in narrow.caveat


@pytest.mark.parametrize(
    ("last", "teacher", "unlabeled", "expected"),
    [
        (0.45, 0.85, 20, ("little of which was copied", "still fell by 10", "in the last quarter of its 2,500 steps")),
        (0.49, 0.69, 0, ("which leaves little to copy", "it saw no unlabeled images")),
    ],
)
def test_what_a_student_lacked_that_isnt_above_its_control(
    last: float,
    teacher: float,
    unlabeled: int,
    expected: tuple[str, ...],
    tmp_path: Path,
    write_student_run: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for role, skill in (("student", 0.6), ("teacher", teacher)):
        monkeypatch.setitem(SKILL, role, skill)
    folder = write_student_run(tmp_path)
    losses = [0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.48, last]
    rows = [f"{epoch},{loss}" for epoch, loss in enumerate(losses, start=1)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,val/loss", *rows]), encoding="utf-8")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["images"]["unlabeled"] = unlabeled
    record["steps"] = 320 if last > 0.48 else 2500
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    caveat = summarize(collect([folder])).caveat
    assert "What may have held the student back: its teacher is" in caveat
    for text in expected:
        assert text in caveat
    assert ("still fell" in caveat, "no unlabeled" in caveat) == (last < 0.48, unlabeled == 0)
    assert ("320 steps only" in caveat) == (last > 0.48)
    monkeypatch.setitem(SKILL, "student", 0.76)
    assert "held the student back" not in summarize(collect([write_student_run(tmp_path / "better")])).caveat


@pytest.mark.parametrize(("teacher", "little"), [(0.69, True), (0.85, False)])
def test_why_no_student_was_trained(
    teacher: float, little: bool, tmp_path: Path, write_student_run: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SKILL, "teacher", teacher)
    folder = write_student_run(tmp_path)
    text = summarize(collect([folder / "control", folder / "teacher"]))
    assert text.sentence.startswith("Control reaches ")
    assert " the teacher, " in text.sentence
    assert ("there is little to distil" in text.caveat) == little


def test_few_images_are_said(tmp_path: Path, write_run: Writer) -> None:
    assert "Only 1 image was judged" in summarize(collect([write_run(tmp_path, "model", images=1)])).caveat


def test_one_run_compares_nothing(tmp_path: Path, write_run: Writer) -> None:
    text = summarize(collect([write_run(tmp_path, "teacher")]))
    assert text.title == "unet-mobilenet on dubai-aerial"
    assert text.sentence.startswith("Teacher reaches 0.")
    assert "control" not in text.sentence + text.caveat


def test_student_without_control(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path, "student")
    write_run(tmp_path / "teacher", "teacher")
    sentence = summarize(collect([tmp_path])).sentence
    assert "below its teacher" in sentence
    assert ", and" not in sentence


def test_not_evaluated(tmp_path: Path, write_run: Writer) -> None:
    text = summarize(collect([write_run(tmp_path, "student", leave_out=("evaluation.json",))]))
    assert "No run here has been evaluated" in text.sentence


def test_seeds_are_averaged(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path / name, images=4) for name in "abc"])
    sentence = summarize(runs).sentence
    assert "the student" in sentence
    assert sentence.count("3 runs from") == 2


def test_notices_of_a_dubious_run(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path, "student", leaking=True, dead=(1,), status="running", steps=10, cpu="Other", images=3)
    write_run(tmp_path / "control", "control", leaking=True, images=3)
    write_run(tmp_path / "teacher", "teacher", images=2)
    found = {notice.title: notice for notice in notices(collect([tmp_path]))}
    assert set(found) == {
        "Leaking split",
        "A class is never predicted",
        "Not finished",
        "Not comparable",
        "Unequal training",
        "Different machines",
    }
    assert found["Leaking split"].loud
    assert found["A class is never predicted"].loud
    assert "Control and Student" in found["Leaking split"].text
    assert "Student never predicts Land" in found["A class is never predicted"].text
    assert "Teacher" in found["Not comparable"].text


def test_a_clean_run_has_no_notice(tmp_path: Path, write_student_run: Writer) -> None:
    assert notices(collect([write_student_run(tmp_path)])) == []


@pytest.mark.parametrize(
    ("teacher", "control", "expected"),
    [
        ({}, {"slower": 1.15, "spread": 1.9}, {}),
        ({"load": 0.63}, {}, {"Busy machine": ("63", "Teacher was timed", "--resume")}),
        ({}, {"slower": 1.25}, {"Equal networks, unequal times": ("Control and Student", "20.1 ms", "16.0 ms")}),
        ({"spread": 11.2}, {}, {"Unsteady times": ("Teacher", "221 ms", "2,474 ms")}),
        ({"session": "2025-11-20T11:00:00+00:00"}, {}, {"Not timed in turns": ("Teacher, Control and Student",)}),
        ({"session": None}, {"session": None}, {"Not timed in turns": ("Teacher",)}),
    ],
)
def test_doubtful_latencies_are_said(
    tmp_path: Path,
    write_run: Writer,
    teacher: dict[str, Any],
    control: dict[str, Any],
    expected: dict[str, tuple[str, ...]],
) -> None:
    write_run(tmp_path, "student")
    write_run(tmp_path / "teacher", "teacher", **teacher)
    write_run(tmp_path / "control", "control", **control)
    found = {notice.title: notice for notice in notices(collect([tmp_path]))}
    assert set(found) == set(expected)
    for title, parts in expected.items():
        assert all(part in found[title].text for part in parts), found[title].text
        assert found[title].loud is (title == "Busy machine")
