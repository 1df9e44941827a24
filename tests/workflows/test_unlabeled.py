"""Distilling where no training image has a mask: judged by validation masks, else by agreement with the teacher."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import segshrink
from segshrink.cli._tables import print_inspection
from segshrink.config import DatasetDescription
from segshrink.data import inspect_dataset
from segshrink.errors import ConfigError, DataError
from segshrink.evaluation.confusion import Confusion
from segshrink.run_folder import RunFolder
from segshrink.run_records import RunRecord
from segshrink.study_records import STUDY
from segshrink.workflows.progress import silent
from segshrink.workflows.unlabeled import with_judge

from ..cli.conftest import COLORS, description
from .test_verbs import tiny_recipe

pytestmark = pytest.mark.usefixtures("quick_runs")

# Says the class whose color is nearest, but for the last row of each image, so that it isn't what the masks say.
TEACHER = """
import torch
from torch import nn

class Nearest(nn.Module):
    num_classes = 3
    def forward(self, images):
        colors = torch.tensor({colors}, dtype=torch.float32)
        distance = (images.float()[:, None] - colors[None, :, :, None, None]).square().mean(dim=2) / 500
        return -distance

def make():
    return Nearest()
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe on scenes, with a teacher that needs no training in ``nearest_of_three.py``."""
    path = tiny_recipe(tmp_path)
    content = yaml.safe_load(path.read_text())
    source = TEACHER.format(colors=[list(color) for color in COLORS.values()])
    (tmp_path / "nearest_of_three.py").write_text(source)
    content["distillation"] = {"teachers": ["nearest_of_three:make"]}
    path.write_text(yaml.safe_dump(content))
    monkeypatch.syspath_prepend(tmp_path)
    return path


def redescribe(recipe: Path, **changes: Any) -> None:
    """Change the description of the recipe's data; None leaves a key out."""
    described = {key: value for key, value in (description() | changes).items() if value is not None}
    (recipe.parent / "scenes" / "dataset.yaml").write_text(yaml.safe_dump(described))


def test_without_any_mask_the_teacher_judges(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    redescribe(recipe, masks=None, split=None)
    for masks in tmp_path.glob("scenes/*/masks"):
        shutil.rmtree(masks)
    with caplog.at_level(logging.WARNING):
        result = segshrink.distill(recipe, out=tmp_path / "run", doctor=False)
    assert "judged by agreement with it" in caplog.text

    folder = RunFolder(result.folder)
    record, evaluation = folder.run(), folder.evaluation()
    assert (record.judged_by, evaluation.truth, evaluation.images) == ("teacher", "teacher", 1)
    assert (record.images.labeled, record.images.unlabeled, record.images.val) == (0, 4, 1)
    assert result.mean_iou["teacher"] == 1
    # The student's classes against the teacher's, counted by hand from what both left.
    (answer,) = folder.path.glob("teacher/maps/**/*.png")
    answered = np.asarray(Image.open(answer).convert("RGB"))
    truth = np.stack([(answered == color).all(axis=2) for color in COLORS.values()]).argmax(axis=0)
    (predicted,) = folder.predictions.iterdir()
    counted = Confusion(3).update(np.asarray(Image.open(predicted)), truth.astype(np.uint8))
    assert result.mean_iou["student"] == pytest.approx(counted.scores().mean_iou)
    assert "Judged by agreement with the teacher" in result.report.read_text(encoding="utf-8")
    assert "agrees with its teacher" in result.report.read_text(encoding="utf-8")

    again = segshrink.evaluate(result.folder)
    assert again.confusion == evaluation.confusion
    assert segshrink.distill(recipe, out=tmp_path / "run", doctor=False, resume=True).mean_iou == result.mean_iou


def test_the_answers_are_those_of_the_teacher_that_teaches(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redescribe(recipe, masks=None, split=None)
    source = (tmp_path / "nearest_of_three.py").read_text()
    (tmp_path / "farthest_of_three.py").write_text(source.replace("return -distance", "return distance"))

    def answer(teacher: str, out: Path) -> np.ndarray:
        opened = segshrink.load_recipe(recipe, [f"distillation.teachers=['{teacher}:make']"])
        with_judge(opened, out=out, control=False, progress=silent)
        (path,) = out.glob("teacher/maps/**/*.png")
        return np.asarray(Image.open(path))

    out = tmp_path / "run"
    nearest = answer("nearest_of_three", out)
    farthest = answer("farthest_of_three", tmp_path / "other")
    assert (nearest != farthest).any()
    assert (answer("farthest_of_three", out) == farthest).all()
    (path,) = out.glob("teacher/maps/**/*.png")
    written = path.stat().st_mtime_ns
    answer("farthest_of_three", out)
    assert path.stat().st_mtime_ns == written, "answers are kept"
    (out / STUDY).write_text("{}")
    with pytest.raises(ConfigError, match=r"study .* another teacher, farthest"):
        answer("nearest_of_three", out)
    RunFolder(out).write_run(RunRecord(role="student", teacher="farthest", teacher_identity="a"))
    with pytest.raises(ConfigError, match="learns from farthest"):
        answer("nearest_of_three", out)
    assert path.stat().st_mtime_ns == written


def test_validation_masks_judge_where_there_are_some(recipe: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "scenes/train/masks")
    changes = {
        "images": "val/images/*.jpg",
        "masks": "val/masks/*.png",
        "split": {"train": [], "val": ["."]},
        "unlabeled": "train/images/*.jpg",
    }
    redescribe(recipe, **changes)
    result = segshrink.distill(recipe, out=tmp_path / "run")
    folder = RunFolder(result.folder)
    assert (folder.run().judged_by, folder.evaluation().truth) == ("labels", "labels")
    assert (folder.run().images.labeled, folder.run().images.unlabeled) == (0, 3)
    assert result.mean_iou["teacher"] < 1


def test_what_needs_masks_says_so(recipe: Path, tmp_path: Path) -> None:
    redescribe(recipe, masks=None, split=None)
    with pytest.raises(ConfigError, match=r"no training image of 'rectangles' has a mask, so a control learns from"):
        segshrink.distill(recipe, out=tmp_path / "run", control=True)
    with pytest.raises(DataError, match=r"no training image of 'rectangles' has a mask, and a teacher learns from"):
        segshrink.train(recipe, out=tmp_path / "teacher")
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "distillation": {}}))
    with pytest.raises(ConfigError, match="name a teacher with --teacher"):
        segshrink.distill(recipe, out=tmp_path / "run")


def test_inspect_says_what_it_is_ready_for(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = {key: value for key, value in description().items() if key not in ("masks", "split")}
    root = {"root": recipe.parent / "scenes"}
    inspection = inspect_dataset(DatasetDescription.model_validate(described | root))
    assert inspection.sound
    assert {part.name: part.samples for part in inspection.parts} == {"train": 4, "val": 1}
    print_inspection(inspection)
    assert "judged by agreement with it" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="'split' is missing"):
        DatasetDescription.model_validate(described | root | {"masks": "*/masks/*.png"})
    empty = {"masks": "*/masks/*.png", "split": {"train": [], "val": ["val"]}}
    problems = inspect_dataset(DatasetDescription.model_validate(described | root | empty)).problems
    assert "split.train is empty" in problems[0].message
