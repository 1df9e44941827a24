from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segshrink.config import Recipe
from segshrink.errors import ConfigError, FileError, TrainingError
from segshrink.models import build_model
from segshrink.teachers import TorchTeacher, open_teacher
from segshrink.training import train

from .conftest import changed, rows_of, stop_at


def test_a_trained_teacher_beats_the_majority_class(recipe: Recipe, tmp_path: Path) -> None:
    result = train(recipe, out=tmp_path / "run")
    assert result.mean_iou > 0.5  # one class alone would give at most 1/3
    rows = rows_of(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 48


@pytest.mark.parametrize(
    ("options", "interrupt"),
    [
        ({"student__training__ema_decay": 0.8}, 10),
        ({"student__model__id": "separable-unet", "student__model__options": {"width": 0.125}}, 7),
        ({"student__training__validate_every": 2}, 1),
        ({"student__training__validate_every": 3}, 24),
    ],
    ids=["mid-epoch, averaged weights", "dropout", "first step", "epoch end"],
)
def test_a_resumed_run_ends_with_the_same_weights(
    recipe: Recipe, tmp_path: Path, options: dict[str, object], interrupt: int
) -> None:
    recipe = changed(recipe, **options)
    train(recipe, out=tmp_path / "whole", role="control")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "parts", role="control", progress=stop_at(interrupt))
    train(recipe, out=tmp_path / "parts", role="control", resume=True)
    whole, parts = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    last = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "parts")]
    assert all(torch.equal(last[0]["state_dict"][name], last[1]["state_dict"][name]) for name in last[0]["state_dict"])
    kept = [[row["val/mean_iou"] for row in rows_of(tmp_path / name)] for name in ("whole", "parts")]
    assert kept[0] == kept[1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_worker_count_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(changed(recipe, crops__workers=workers), out=tmp_path / str(workers), role="control")
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("0", "2"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cached", [False, True], ids=["live teacher", "cached teacher"])
def test_a_student_learns_from_the_teacher_alone(recipe: Recipe, tmp_path: Path, cached: bool) -> None:
    train(recipe, out=tmp_path / "teacher")
    recipe = changed(recipe, distillation__alpha=0.0, distillation__teacher_cache=cached, seed=4)
    teacher = open_teacher(tmp_path / "teacher", _classes(recipe))
    assert teacher.module is not None
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    result = train(recipe, out=tmp_path / "student", role="student", teacher=teacher)
    assert result.mean_iou > 0.5
    assert all(torch.equal(before[name], value) for name, value in teacher.module.state_dict().items())
    saved = torch.load(tmp_path / "student" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("model.") for name in saved)
    row = rows_of(tmp_path / "student")[-1]
    assert {"train/pixel_kl", "val/pixel_kl", "val/loss"} <= row.keys()
    assert "train/cross_entropy" not in row  # alpha 0 leaves the labels out


@pytest.mark.parametrize("cached", [False, True], ids=["live teacher", "cached teacher"])
def test_a_student_learns_from_a_teacher_in_8_bits(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cached: bool
) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    monkeypatch.setenv("SEGSHRINK_CACHE", str(tmp_path / "cache"))
    train(recipe, out=tmp_path / "teacher")
    changes = {"alpha": 0.0, "teacher_cache": cached, "precision": "int8"}
    recipe = changed(recipe, **{f"distillation__{key}": value for key, value in changes.items()}, seed=4)
    teacher = open_teacher(tmp_path / "teacher", _classes(recipe))
    result = train(recipe, out=tmp_path / "student", role="student", teacher=teacher)
    assert result.mean_iou > 0.5
    assert "runs in int8 through OpenVINO" in caplog.text
    record = json.loads((tmp_path / "student" / "run.json").read_text())
    assert record["teacher_identity"] == teacher.identity


FEATURE_TERMS = [
    {"name": "cross_entropy"},
    {"name": "cross_entropy", "weight": 0.1, "options": {"label_smoothing": 0.1}},
    {"name": "masked_generation"},
    {"name": "hint", "student": "stage:0", "weight": 0.5},
    {"name": "hint", "student": "decoder", "weight": 0.5},
]


def test_a_student_that_learns_from_features_resumes_to_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, out=tmp_path / "teacher")
    recipe = changed(
        recipe, distillation__terms=FEATURE_TERMS, student__training__ema_decay=0.8, student__training__epochs=3
    )
    teacher = open_teacher(tmp_path / "teacher", _classes(recipe))
    train(recipe, out=tmp_path / "whole", role="student", teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "parts", role="student", teacher=teacher, progress=stop_at(13))
    train(recipe, out=tmp_path / "parts", role="student", teacher=teacher, resume=True)
    checkpoints = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    ]
    for part in ("state_dict", "current_model_state"):  # averaged and plain weights
        whole, parts = (checkpoint[part] for checkpoint in checkpoints)
        assert {name.split(".")[1] for name in whole if name.startswith("adapters.")} == {
            "masked_generation",
            "hint@stage:0",
            "hint@decoder",
        }
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    averaged, plain = (checkpoints[0][part] for part in ("state_dict", "current_model_state"))
    assert not torch.equal(averaged["adapters.hint@decoder.weight"], plain["adapters.hint@decoder.weight"])
    saved = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert saved.keys() == load_file(tmp_path / "teacher" / "model" / "model.safetensors").keys()
    labels = ("cross_entropy", "cross_entropy#2", "masked_generation", "hint@stage:0", "hint@decoder")
    rows = [rows_of(tmp_path / name) for name in ("whole", "parts")]
    for label in labels:
        assert [row[f"train/{label}"] for row in rows[0]] == [row[f"train/{label}"] for row in rows[1]]
        assert float(rows[0][-1][f"val/{label}"]) > 0
        assert float(rows[0][-1][f"train/{label}"]) < float(rows[0][0][f"train/{label}"])


def test_nobody_holds_a_teacher_whose_answers_are_cached(recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(recipe, distillation__teacher_cache=str(tmp_path / "answers"), student__training__epochs=1)
    opened = []

    def new_teacher() -> TorchTeacher:
        assert recipe.student is not None
        teacher = TorchTeacher(build_model(recipe.student.model.id, _classes(recipe), options={"width": 4, "depth": 2}))
        opened.append(weakref.ref(teacher.module))
        return teacher

    held = []

    def look(done: int, total: int, text: str) -> None:
        if text.startswith("epoch"):
            gc.collect()
            held.append(opened[0]() is not None)

    train(recipe, out=tmp_path / "student", role="student", teacher=new_teacher, progress=look)
    assert held == [False] * 8
    assert len(list((tmp_path / "answers").rglob("*.npy"))) == 6  # four training and two validation scenes


@pytest.mark.parametrize("cached", [False, True], ids=["live teacher", "cached teacher"])
def test_a_student_starts_from_its_teachers_encoder(recipe: Recipe, tmp_path: Path, cached: bool) -> None:
    train(recipe, out=tmp_path / "teacher")
    teacher = open_teacher(tmp_path / "teacher", _classes(recipe))
    assert teacher.module is not None
    still = {"student__training__learning_rate": 1e-12, "student__training__epochs": 1, "distillation__alpha": 0.0}
    same = recipe.teacher.model.model_dump() if recipe.teacher else {}
    recipe = changed(
        recipe, **still, student__model=same, distillation__inherit_encoder=True, distillation__teacher_cache=cached
    )
    train(recipe, out=tmp_path / "student", role="student", teacher=teacher)
    train(recipe, out=tmp_path / "control", role="control")
    given = {name: value for name, value in teacher.module.state_dict().items() if "encoder" in name and value.ndim > 1}
    student, control = (load_file(tmp_path / role / "model" / "model.safetensors") for role in ("student", "control"))
    assert given
    for name, value in given.items():
        kept = name.removeprefix("network.")
        assert torch.allclose(student[kept], value, atol=1e-6)
        assert not torch.allclose(control[kept], value, atol=1e-2)


def test_an_encoder_that_does_not_fit_is_not_inherited(recipe: Recipe, tmp_path: Path) -> None:
    teacher = TorchTeacher(build_model("mobile", _classes(recipe), options={"width": 0.25}))
    wrong = changed(recipe, distillation__inherit_encoder=True)
    with pytest.raises(ConfigError, match=r"inherit_encoder: the teacher fits 0 of .*set it to false"):
        train(wrong, out=tmp_path / "student", role="student", teacher=teacher)


def test_a_loss_that_is_not_finite_names_step_term_and_scene(recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(recipe, student__training__learning_rate=1e30, student__training__clip_norm=None)
    with pytest.raises(TrainingError, match=r"not finite at step [1-9]\d*: cross_entropy on .*t\d.*lower") as caught:
        train(recipe, out=tmp_path / "run", role="control")
    assert "learning_rate" in str(caught.value)


def test_refusals(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a teacher"):
        train(recipe, out=tmp_path / "student", role="student")
    with pytest.raises(ConfigError, match="no 'student' section"):
        train(recipe.model_copy(update={"student": None}), out=tmp_path / "none", role="control")
    with pytest.raises(ConfigError, match="fp16"):
        train(changed(recipe, student__training__precision="fp16"), out=tmp_path / "half", role="control")
    train(recipe, out=tmp_path / "run")
    with pytest.raises(FileError, match="--resume"):
        train(recipe, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="another recipe"):
        train(recipe.model_copy(update={"seed": 9}), out=tmp_path / "run", resume=True)
    assert train(recipe, out=tmp_path / "run", resume=True).steps == 48


def _classes(recipe: Recipe):
    from segshrink.data import open_dataset

    return open_dataset(recipe.data).classes
