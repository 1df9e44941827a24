"""The run folder: one reader and writer of its files, which finds everything that belongs to a run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import segshrink
from segshrink.errors import DataError, FileError
from segshrink.evaluation_records import ClassRecord, EvaluationRecord, ImageRecord, ScoresRecord
from segshrink.files import write_json
from segshrink.run_folder import RunFolder
from segshrink.run_records import ProfileRecord, RunRecord

NAMES = {"run.json", "evaluation.json", "profile.json"}


def evaluation(**changes: object) -> EvaluationRecord:
    values = {
        "data": "data",
        "split": "val",
        "classes": [ClassRecord(name="land"), ClassRecord(name="water", color="#0000FF")],
        "scores": ScoresRecord(mean_iou=0.5, iou=[0.5, None]),
        "confusion": [[5, 5], [0, 0]],
    }
    return EvaluationRecord.model_validate({**values, **changes})


def test_one_module_opens_the_records_of_a_run() -> None:
    source = Path(segshrink.__file__).parent
    named = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and Path(node.value).name in NAMES
    }
    assert named == {"run_folder.py"}


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not any((folder.is_run, folder.has_run, folder.has_evaluation, folder.has_profile))
    run = RunRecord(role="student", name="mobile", status="running", teachers=[{"source": "unet"}])
    scores, costs = evaluation(), ProfileRecord(parameters=12, input=[1, 3, 64, 64])
    folder.write_run(run)
    folder.write_evaluation(scores)
    folder.write_profile(costs)
    assert (folder.run(), folder.evaluation(), folder.profile()) == (run, scores, costs)
    assert all((folder.is_run, folder.has_run, folder.has_evaluation, folder.has_profile))
    folder.remove_measurements()
    assert (folder.has_run, folder.has_evaluation, folder.has_profile) == (True, False, False)


def test_a_missing_evaluation_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="segshrink evaluate"):
        RunFolder(tmp_path).evaluation()


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"confusion": [[1, 2], [3]]}, "'confusion'"), ({"scores": {"mean_iou": 1, "iou": [1]}}, "'scores.iou'")],
)
def test_numbers_that_contradict_the_classes_are_refused(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    content = {**evaluation().to_json(), **changes}
    write_json(tmp_path / "evaluation.json", content)
    with pytest.raises(DataError, match=field):
        RunFolder(tmp_path).evaluation()


def test_an_evaluation_of_another_split_is_not_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.refuse_other_evaluation("data", "val")
    folder.write_evaluation(evaluation())
    folder.refuse_other_evaluation("data", "val")
    for data, split in (("data", "test"), ("other", "val")):
        with pytest.raises(FileError, match="overwrite"):
            folder.refuse_other_evaluation(data, split)


def test_what_somebody_else_wrote_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.refuse_foreign()
    (tmp_path / "profile.json").write_text('{"mine": 1}')
    with pytest.raises(FileError, match=r"profile\.json"):
        folder.refuse_foreign()
    (tmp_path / "profile.json").unlink()
    folder.write_run(RunRecord(role="teacher"))
    folder.refuse_foreign()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "missing.png", "a\0b"])
def test_pictures_outside_the_folder_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder.path / "a.png").write_bytes(b"x")
    image = ImageRecord(name="a", pictures={"image": "a.png", "truth": name, "prediction": "a.png"})
    assert folder.pictures_of(image) is None


def test_metrics_keep_only_measured_cells(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.metrics() == {}
    folder.metrics_file.write_text("epoch,train/loss,val/loss\n0,1.5,nan\n1,,\n,3,3\n2,inf,0.5\n3\n")
    assert folder.metrics() == {"train/loss": ([0.0], [1.5]), "val/loss": ([2.0], [0.5])}
    folder.metrics_file.write_bytes(b"epoch\n\xff\n")
    with pytest.raises(FileError, match=r"metrics\.csv"):
        folder.metrics()
