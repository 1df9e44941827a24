"""The runs of a report: everything that is in their folders, nothing that isn't, one clear error for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segshrink.errors import DataError, FileError, SegshrinkError
from segshrink.report import collect

Writer = Callable[..., Path]


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_order_is_teacher_control_student(tmp_path: Path, write_student_run: Writer) -> None:
    runs = collect([write_student_run(tmp_path, images=2)])
    assert [run.role for run in runs] == ["teacher", "control", "student"]
    assert [run.folder.path for run in runs] == [tmp_path / "teacher", tmp_path / "control", tmp_path]


def test_values_are_those_of_the_files(tmp_path: Path, write_run: Writer) -> None:
    (run,) = collect([write_run(tmp_path, "student", images=3)])
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert run.evaluation is not None
    assert run.profile is not None
    assert run.evaluation.scores.mean_iou == written["scores"]["mean_iou"]
    assert run.evaluation.to_json()["confusion"] == written["confusion"]
    assert run.interval == tuple(written["interval"]["mean_iou"])
    assert [image.name for image in run.evaluation.per_image] == [image["name"] for image in written["per_image"]]
    assert (run.record.images.labeled, run.record.images.unlabeled, run.record.steps) == (54, 120, 2500)
    assert run.latency == pytest.approx(16.04)
    assert run.profile.machine.cpu == "Example CPU 3000"


def test_metrics_keep_only_measured_cells(tmp_path: Path, write_run: Writer) -> None:
    (run,) = collect([write_run(tmp_path, "student", leave_out=("evaluation.json",), epochs=5)])
    assert run.metrics["train/loss"][0] == [0, 1, 2, 3, 4]
    assert run.metrics["val/mean_iou"][0] == [0, 2, 4]
    assert "epoch" not in run.metrics


def test_metrics_survive_gaps_and_nan(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.5,nan\n1,,\n,3,3\n2,inf,0.5\n3\n")
    (run,) = collect([tmp_path])
    assert run.metrics == {"train/loss": ([0.0], [1.5]), "val/loss": ([2.0], [0.5])}


def test_absent_class_is_none(tmp_path: Path, write_run: Writer) -> None:
    (run,) = collect([write_run(tmp_path, "model", absent=(4,), images=2)])
    assert run.evaluation is not None
    assert run.evaluation.scores.iou[4] is None
    assert all(value is not None for value in run.evaluation.scores.iou[:4])


@pytest.mark.parametrize("present", ["run.json", "evaluation.json", "profile.json", "metrics.csv"])
def test_any_single_file_is_a_run(tmp_path: Path, write_run: Writer, present: str) -> None:
    names = {"run.json", "evaluation.json", "profile.json", "metrics.csv"}
    (run,) = collect([write_run(tmp_path, "student", leave_out=tuple(names - {present}), images=1)])
    assert (run.evaluation is not None, run.profile is not None, bool(run.metrics)) == (
        present == "evaluation.json",
        present == "profile.json",
        present == "metrics.csv",
    )


def test_companion_without_run_json_keeps_its_role(tmp_path: Path, write_run: Writer) -> None:
    write_run(tmp_path, "student", images=1)
    write_run(tmp_path / "teacher", "teacher", leave_out=("run.json",), images=1)
    assert [run.role for run in collect([tmp_path])] == ["teacher", "student"]


@pytest.mark.parametrize(("learned", "described", "shown"), [("a", "a", True), ("a", "b", False), (None, "b", True)])
def test_a_teacher_that_taught_nobody_is_left_out(
    learned: str | None, described: str, shown: bool, tmp_path: Path, write_student_run: Writer
) -> None:
    folder = write_student_run(tmp_path, images=1)
    change(folder, "run.json", teacher_identity=learned)
    change(folder / "teacher", "run.json", identity=described)
    roles = ["teacher", "control", "student"]
    assert [run.role for run in collect([folder])] == roles[not shown :]


def test_one_folder_named_twice_counts_once(tmp_path: Path, write_student_run: Writer) -> None:
    folder = write_student_run(tmp_path, images=1)
    assert len(collect([folder / "control", folder, folder / "teacher", folder])) == 3


def test_copies_of_one_teacher_count_once(tmp_path: Path, write_student_run: Writer) -> None:
    folders = [write_student_run(tmp_path / name, images=1) for name in ("a", "b")]
    assert [run.role for run in collect(folders)] == ["teacher", "control", "control", "student", "student"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "evaluation/missing.png", "a\0b"])
def test_pictures_outside_the_run_are_not_followed(tmp_path: Path, write_run: Writer, path: str) -> None:
    folder = write_run(tmp_path / "run", "model", images=1)
    (tmp_path / "secret.png").write_bytes(b"x")
    images = json.loads((folder / "evaluation.json").read_text())["per_image"]
    images[0]["pictures"]["truth"] = path
    change(folder, "evaluation.json", per_image=images)
    (run,) = collect([folder])
    assert run.evaluation is not None
    assert run.folder.pictures_of(run.evaluation.per_image[0]) is None


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path, write_run: Writer) -> None:
    folder = write_run(tmp_path / "run", "model", images=1)
    truth = next((folder / "evaluation").glob("*.truth.png"))
    truth.rename(tmp_path / "elsewhere.png")
    truth.symlink_to(tmp_path / "elsewhere.png")
    (run,) = collect([folder])
    assert run.evaluation is not None
    assert run.folder.pictures_of(run.evaluation.per_image[0]) is None


def test_color_that_is_none_becomes_gray(tmp_path: Path, write_run: Writer) -> None:
    folder = write_run(tmp_path, "model", classes=(("a", "red;}body{display:none"), ("b", "#12AB34")), images=1)
    (run,) = collect([folder])
    assert run.evaluation is not None
    assert [entry.color for entry in run.evaluation.classes] == ["#808080", "#12AB34"]


@pytest.mark.parametrize(
    ("name", "values", "parts"),
    [
        ("evaluation.json", {"confusion": [[1, 2], [3, 4]]}, ("'confusion'", "5 lists of 5")),
        ("evaluation.json", {"confusion": [[1], [3, 4]]}, ("'confusion'", "5 lists of 5")),
        ("evaluation.json", {"scores": None}, ("'scores'", "found null")),
        ("evaluation.json", {"classes": []}, ("'classes'", "at least 1")),
        ("evaluation.json", {"scores": {"mean_iou": "high"}}, ("'scores.mean_iou'", "a number", "'high'")),
        ("evaluation.json", {"leaking": "no"}, ("'leaking'", "true or false")),
        ("evaluation.json", {"per_image": [1]}, ("'per_image[0]'", "an object", "found int 1")),
        ("run.json", {"steps": [1]}, ("'steps'", "a whole number", "found list")),
        ("run.json", {"role": "boss"}, ("'role'", "'student'", "'boss'")),
        ("profile.json", {"latency_ms": 3}, ("'latency_ms'", "an object", "found int 3")),
    ],
)
def test_wrong_content_names_file_and_field(
    tmp_path: Path, write_run: Writer, name: str, values: dict[str, Any], parts: tuple[str, ...]
) -> None:
    folder = write_run(tmp_path, "student", images=1)
    change(folder, name, **values)
    with pytest.raises(DataError) as caught:
        collect([folder])
    for part in (str(folder / name), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\x00\xff"])
def test_broken_json_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SegshrinkError, match=r"run\.json"):
        collect([tmp_path])


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a folder"):
        collect([tmp_path / "none"])
    with pytest.raises(FileError, match="holds none of"):
        collect([tmp_path])
    with pytest.raises(FileError, match="no run folder"):
        collect([])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_what_is_no_number_is_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / "run.json").write_text(f'{{"role": "model", "seconds": {number}}}')
    with pytest.raises(FileError, match=r"run\.json is not valid JSON"):
        collect([tmp_path])
