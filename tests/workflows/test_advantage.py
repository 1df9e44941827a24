"""Whether there is something to distil, from the scores of teacher and control."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from segshrink.classes import ClassMap
from segshrink.config import Recipe, load_recipe
from segshrink.data import open_dataset
from segshrink.errors import TrainingError
from segshrink.evaluation_records import ClassRecord, EvaluationRecord, ScoresRecord
from segshrink.models import build_model
from segshrink.run_folder import RunFolder
from segshrink.run_records import RunRecord
from segshrink.teachers import Teacher, open_teacher
from segshrink.workflows.advantage import check_advantage

from ..cli.conftest import COLORS, write_data, write_recipe


def evaluated(folder: RunFolder, mean_iou: float) -> None:
    record = EvaluationRecord(
        data="d",
        split="val",
        classes=[ClassRecord(name=name) for name in COLORS],
        scores=ScoresRecord(mean_iou=mean_iou, iou=[mean_iou] * 3),
        confusion=[[1] * 3] * 3,
    )
    folder.write_run(RunRecord(role="control"))
    folder.write_evaluation(record)


class Case:
    """A student's folder with the scores of its teacher and its control."""

    def __init__(
        self, home: Path, *, teacher: float, control: float, unlabeled: bool = False, share: float = 0.5
    ) -> None:
        data = write_data(home)
        if unlabeled:
            (data.parent / "more").mkdir()
            shutil.copy(data.parent / "val/images/v0.jpg", data.parent / "more/u0.jpg")
            data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), "unlabeled": "more/*.jpg"}))
        self.recipe = load_recipe(write_recipe(home, data), [f"crops.unlabeled_share={share}"])
        self.out = home / "run"
        evaluated(RunFolder(self.out).teacher, teacher)
        evaluated(RunFolder(self.out).control, control)
        RunFolder(self.out).control.write_recipe(self.recipe)

    def check(self, *, known: tuple[str, ...] = tuple(COLORS), force: bool = False, **changes: Any) -> None:
        recipe = Recipe.model_validate({**self.recipe.model_dump(), **changes})
        dataset = open_dataset(recipe.data)
        classes = ClassMap.build([(name, None, None) for name in known])
        folder = self.out.with_name("model")
        build_model("unet", classes, options={"width": 4, "depth": 2}).save(folder)

        def teacher() -> Teacher:
            return open_teacher(folder, dataset.classes)

        check_advantage(recipe, dataset, out=self.out, teacher=teacher, force=force)


def test_todays_dubai_teacher_has_little_to_give(tmp_path: Path) -> None:
    case = Case(tmp_path, teacher=0.644, control=0.627)
    with pytest.raises(TrainingError, match=r"0\.644.*0\.627.*\+1\.7 points.*\+4\.0.*unlabeled.*--force"):
        case.check()


@pytest.mark.parametrize(
    ("teacher", "control", "unlabeled"), [(0.69, 0.634, False), (0.705, 0.106, True), (0.644, 0.627, True)]
)
def test_a_clear_lead_or_unlabeled_images_are_worth_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, teacher: float, control: float, unlabeled: bool
) -> None:
    Case(tmp_path, teacher=teacher, control=control, unlabeled=unlabeled).check(force=True)
    assert not caplog.messages


def test_unlabeled_images_dont_help_a_teacher_below_its_control_or_where_none_are_drawn(tmp_path: Path) -> None:
    case = Case(tmp_path, teacher=0.875, control=0.899, unlabeled=True)
    with pytest.raises(TrainingError, match=r"-2\.4 points.*with unlabeled"):
        case.check()
    case = Case(tmp_path / "unused", teacher=0.644, control=0.627, unlabeled=True, share=0)
    with pytest.raises(TrainingError, match="without unlabeled"):
        case.check()


def test_nothing_is_said_without_comparable_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = Case(tmp_path, teacher=0.3, control=0.6)
    case.check(known=("Ground", "Roof"), force=True)
    case.check(student={"model": {"id": "mobile"}}, force=True)
    control = RunFolder(case.out).control
    control.write_evaluation(control.evaluation().model_copy(update={"pixels": 7}))
    case.check(force=True)
    (case.out / "control" / "evaluation.json").unlink()
    case.check(force=True)
    assert not caplog.messages


def test_force_says_it_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Case(tmp_path, teacher=0.644, control=0.627).check(force=True)
    assert "+1.7 points" in caplog.text
