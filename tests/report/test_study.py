"""The page of a hyper-parameter search, from what study.json holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.errors import DataError
from segshrink.report import report
from segshrink.study_records import StudyRecord, TrialRecord, TuningRecord

RATE, KIND = "student.training.learning_rate", "student.model.id"


def trial(number: int, state: str, *values: float, **further: object) -> TrialRecord:
    params = {RATE: 10.0 ** -(number + 1), KIND: "unet" if number % 2 else "<b>mobile</b>"}
    return TrialRecord.model_validate({"number": number, "state": state, "values": values, "params": params, **further})


def study(status: str, **changes: object) -> TuningRecord:
    trials = (
        trial(0, "complete", 0.5, 20.0, recipe=True, seconds=61.0),
        trial(1, "complete", 0.625, 30.0),
        trial(2, "fail", reason="the loss became NaN at step 7"),
        trial(3, "complete", 0.25, 10.0),
        trial(4, "running"),
    )
    student = StudyRecord(
        role="student", trials=trials, importance=({RATE: 0.75, KIND: 0.25}, {RATE: 1.0}), front=(0, 1, 3), best=1
    )
    fields = {"name": "fields-0123abcd", "data": "north", "storage": "journal.log", "trials": 6, "sampler": "tpe"}
    rest = {"pruner": "median", "updated": "2026-11-28T22:00:00+00:00", "objectives": ("miou", "latency")}
    return TuningRecord.model_validate({**fields, **rest, "status": status, "studies": (student,), **changes})


def test_the_page_of_running_trials_renews_itself_and_draws_no_files(tmp_path: Path) -> None:
    study("running").write(tmp_path / "study.json", overwrite=False)
    page = report([tmp_path]).read_text()
    assert '<meta http-equiv="refresh"' in page
    assert "4 of 6 trials have ended" in page
    assert not (tmp_path / "figures").exists()


def test_the_page_says_who_is_best_and_why_others_failed(tmp_path: Path) -> None:
    study("finished", leaking=True).write(tmp_path / "study.json", overwrite=False)
    page = report([tmp_path], tmp_path / "page.html").read_text()
    assert "reaches 0.625 validation mIoU (trial 1); the recipe as it is reaches 0.500" in page
    assert "the loss became NaN at step 7" in page
    assert "30.0 ms" in page
    assert "leaking split" in page
    assert "<b>mobile" not in page
    assert "1 min 01 s" in page
    rows = page.partition("<tbody>")[2].split("<tr")[1:]
    assert [row.count("complete") for row in rows] == [1, 1, 1, 0, 0]
    assert "0.625" in rows[0]
    assert "0.250" in rows[2]
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {
        *("history_miou", "history_latency", "pareto_latency", "importance_miou", "importance_latency"),
        *("slice_student_training_learning_rate", "slice_student_model_id"),
    }


def test_the_page_says_that_latencies_were_measured_on_a_busy_machine(tmp_path: Path) -> None:
    busy = trial(0, "complete", 0.5, 20.0, load={"others": 0.625, "busy": True})
    for objectives, told in (("miou", "latency"), True), (("miou", "macs"), False):
        record = study("running", studies=(StudyRecord(role="student", trials=(busy,)),), objectives=objectives)
        record.write(tmp_path / "study.json", overwrite=True)
        assert ("62.5\N{NO-BREAK SPACE}% of the cores" in report([tmp_path]).read_text()) == told


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"name": "fields"}')
    with pytest.raises(DataError, match=r"study\.json.*data"):
        report([tmp_path])
