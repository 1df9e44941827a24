"""The verbs as functions: what the command line can do, Python does, with typed results and progress as a callback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

import segshrink
import segshrink.workflows.train
from segshrink.config import as_recipe
from segshrink.data.pairing import find_pairs
from segshrink.errors import FileError, UsageError
from segshrink.run_folder import RunFolder
from segshrink.training.terms import student_terms
from segshrink.workflows.distill import measure_teachers
from segshrink.workflows.progress import silent

from ..cli.conftest import COLORS, description, learner, write_scene

pytestmark = pytest.mark.usefixtures("quick_runs")


class Distilled(NamedTuple):
    """What distillation returned, its stages in order, and how often it looked for the images of its data set."""

    result: segshrink.DistillResult
    stages: list[str]
    openings: int


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    root = tmp_path_factory.mktemp("distilled")
    recipe = tiny_recipe(root)
    stages: list[str] = []
    openings: list[Any] = []

    def counted(description: Any) -> Any:
        openings.append(description)
        return find_pairs(description)

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        assert 0 <= done <= total
        assert isinstance(note, str)
        stages.append(stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segshrink.data.sources.find_pairs", counted)
        result = segshrink.distill(recipe, out=root / "run", control=True, force=True, progress=progress)
    return Distilled(result, list(dict.fromkeys(stages)), len(openings))


def test_a_distillation_opens_its_data_set_once(distilled: Distilled) -> None:
    assert distilled.openings == 1


def test_distill_returns_the_scores_of_all_and_the_page(distilled: Distilled) -> None:
    result, stages, _ = distilled
    assert set(result.mean_iou) == {"teacher", "student", "control"}
    for role, folder in (("student", "."), ("control", "control"), ("teacher", "teacher")):
        record = json.loads((result.folder / folder / "evaluation.json").read_text())
        assert result.mean_iou[role] == record["scores"]["mean_iou"]
    assert result.report.read_text().startswith("<!doctype html>")
    expected = ["train teacher", "evaluate teacher", "train control", "evaluate control", "train student"]
    assert [stage for stage in stages if stage in expected] == expected


def test_a_distillation_that_would_replace_a_run_writes_nothing(distilled: Distilled, tmp_path: Path) -> None:
    folder = distilled.result.folder
    recipe, teacher = folder.with_name("recipe.yaml"), folder / "control"
    measured = (folder / "teacher/run.json").read_text()
    with pytest.raises(FileError, match="already holds a run"):
        segshrink.distill(recipe, out=folder, teacher=teacher)
    assert (folder / "teacher/run.json").read_text() == measured
    shutil.copytree(folder / "control", tmp_path / "control")
    with pytest.raises(FileError, match="control already holds a run"):
        segshrink.distill(recipe, out=tmp_path, teacher=teacher, control=True)
    assert not (tmp_path / "teacher").exists()


def test_a_teacher_is_judged_anew_on_other_images_or_masks(distilled: Distilled, tmp_path: Path) -> None:
    recipe = segshrink.load_recipe(tiny_recipe(tmp_path), [f"distillation.teachers=['{distilled.result.folder}']"])
    assert recipe.student is not None
    terms = student_terms(recipe.distillation, recipe.student.terms)

    def judged(*overrides: str) -> tuple[int, int]:
        dataset = segshrink.open_dataset(as_recipe(recipe, overrides).data)
        measure_teachers(recipe.distillation, terms, dataset, out=tmp_path / "run", resume=False, progress=silent)
        written = tmp_path / "run/teacher/evaluation.json"
        return RunFolder(written.parent).evaluation().images, written.stat().st_mtime_ns

    images, first = judged()
    assert (images, judged()) == (2, (2, first))
    images, second = judged("data.split={train: [train], val: [v0]}")
    assert images == 1
    mask = tmp_path / "scenes/val/masks/v0.png"
    Image.fromarray(np.flipud(Image.open(mask))).save(mask)
    assert judged("data.split={train: [train], val: [v0]}")[1] > second


@pytest.mark.parametrize("step", ["train_teacher", "measure_run", "time_runs", "write_report"])
def test_a_run_folder_is_kept_from_the_first_step_to_the_last(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "run", []
    real = getattr(segshrink.workflows.train, step)

    def looked(*arguments: Any, **options: Any) -> Any:
        kept.append((out / ".segshrink-lock").exists())
        return real(*arguments, **options)

    monkeypatch.setattr(f"segshrink.workflows.train.{step}", looked)
    segshrink.train(tiny_recipe(tmp_path), out=out)
    assert kept == [True]


def test_evaluate_gives_what_the_run_holds(distilled: Distilled, tmp_path: Path) -> None:
    folder = distilled[0].folder
    evaluation = segshrink.evaluate(folder)
    assert evaluation.scores.mean_iou == distilled[0].mean_iou["student"]
    model = segshrink.load_model(folder)
    again = segshrink.evaluate(model, dataset_of(folder), "val")
    assert again.confusion == evaluation.confusion
    exported = segshrink.export(folder, tmp_path / "student.onnx")
    assert {path.suffix for path in exported.paths} == {".onnx", ".md", ".json"}
    from_file = segshrink.evaluate(exported.files[0].path, dataset_of(folder))
    assert np.abs(np.subtract(from_file.confusion, evaluation.confusion)).sum() < 0.01 * np.sum(evaluation.confusion)
    with pytest.raises(UsageError, match="data set"):
        segshrink.evaluate(model)
    with pytest.raises(UsageError, match="validation"):
        segshrink.evaluate(model, dataset_of(folder), "validation")
    with pytest.raises(FileError, match="another model"):
        segshrink.evaluate(exported.files[0].path, dataset_of(folder), out=folder)


def test_prune_by_width(distilled: Distilled, tmp_path: Path) -> None:
    result = segshrink.prune(distilled[0].folder / "teacher-run", out=tmp_path / "half", width=0.5)
    assert result.copy is not None
    assert result.original is not None
    assert result.copy["parameters"] < 0.7 * result.original["parameters"]
    assert segshrink.load_model(result.folder).description.classes.names == tuple(COLORS)
    with pytest.raises(UsageError, match="--width"):
        segshrink.prune(distilled[0].folder, out=tmp_path / "none")


def test_diagnose_names_a_student_without_a_teacher(distilled: Distilled) -> None:
    diagnosis = segshrink.diagnose(student=distilled[0].folder, images=4)
    assert diagnosis.images == 4
    assert diagnosis.findings
    with pytest.raises(UsageError, match="images"):
        segshrink.diagnose()


def dataset_of(run: Path) -> segshrink.Dataset:
    return segshrink.open_dataset(segshrink.load_recipe(run / "config.yaml").data)


def tiny_recipe(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            write_scene(root / "scenes", part, f"{part[0]}{number}", rng)
    data = root / "scenes" / "dataset.yaml"
    data.write_text(yaml.safe_dump(description()))
    path = root / "recipe.yaml"
    crops = {"size": 32, "batch_size": 4, "per_epoch": 8, "workers": 0}
    content = {"name": "tiny", "data": str(data), "crops": crops, "teacher": learner(8), "student": learner(4)}
    path.write_text(yaml.safe_dump(content))
    return path
