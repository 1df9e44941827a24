"""A bank from the recipe to the student: trained, opened as one, evaluated, taught from, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import segshrink
from segshrink.cli import main
from segshrink.config import Recipe, load_recipe
from segshrink.data import open_dataset
from segshrink.errors import ConfigError, FileError
from segshrink.run_folder import RunFolder
from segshrink.run_records import RunRecord
from segshrink.teachers.out_of_fold import open_out_of_fold
from segshrink.training.bank import bank_record, member_recipes

from ..cli.conftest import description, learner, write_scene

pytestmark = pytest.mark.usefixtures("quick_runs")
GROUPS = {"north": ["train/images/t0"], "south": ["train/images/t1", "train/images/t2"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, quick_runs: None) -> Path:
    """The folder with recipe.yaml and bank/."""
    root = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            write_scene(root / "scenes", part, f"{part[0]}{number}", rng)
    data: dict[str, Any] = description()
    data["split"] = {"train": ["train"], "val": ["val"], "groups": GROUPS}
    (root / "scenes/dataset.yaml").write_text(yaml.safe_dump(data))
    teacher = learner(4)
    model = teacher.pop("model")
    teacher |= {"folds": 2, "members": [model, model, {"id": "separable-unet", "options": {"width": 0.125}}]}
    crops = {"size": 32, "batch_size": 4, "per_epoch": 8, "workers": 0}
    content = {"name": "tiny", "data": "scenes/dataset.yaml", "crops": crops, "teacher": teacher, "student": learner(4)}
    content["distillation"] = {"teacher_cache": True, "flips": True, "out_of_fold": True}
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    segshrink.train(root / "recipe.yaml", out=root / "bank")
    return root


def recipe_of(folder: Path, number: int) -> Recipe:
    return load_recipe(folder / f"bank/member-{number}/config.yaml")


def test_members_leave_out_their_fold_and_count_up_seeds(trained: Path) -> None:
    images = [recipe_of(trained, number).data.split.train for number in range(3)]
    assert images[0] == ["train/images/t1.jpg", "train/images/t2.jpg"]
    assert images[1] == ["train/images/t0.jpg"]
    assert images[2] == ["train"]
    assert [recipe_of(trained, number).seed for number in range(3)] == [0, 1, 2]
    models = [segshrink.load_model(trained / f"bank/member-{number}").description.id for number in range(3)]
    assert models == ["unet", "unet", "separable-unet"]
    bank = json.loads((trained / "bank/bank.json").read_text())
    assert [len(member["unseen"]) for member in bank["members"]] == [1, 2, 0]


def test_consistency_keeps_away_from_what_a_member_leaves_out_and_sees_what_it_learns_from(
    trained: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(trained / "recipe.yaml", ["data.unlabeled='*/images/*.jpg'", "teacher.consistency={}"])
    dataset = open_dataset(recipe.data)
    for member, record in zip(member_recipes(recipe, dataset), bank_record(recipe, dataset).members, strict=True):
        own = open_dataset(member.data)
        learned = {sample.image.stem for sample in (*own.train, *own.unlabeled)}
        assert not learned & {Path(name).name.split("-")[-1] for name in record.unseen}
        assert not own.unlabeled
    folder = RunFolder(tmp_path)
    folder.write_run(RunRecord(role="teacher", name="tiny", data="tiny"))
    changes = {"split": recipe.data.split.model_copy(update={"train": ["train/images/t0.jpg"], "groups": {}})}
    folder.write_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)}))
    with pytest.raises(ConfigError, match=r"each teacher of .* has seen the ground of all 3 images"):
        open_out_of_fold([tmp_path], dataset, dataset.train)
    elsewhere = load_recipe(trained / "recipe.yaml", ["teacher.consistency={}"])
    assert all(member.data.split.test is None for member in member_recipes(elsewhere, open_dataset(elsewhere.data)))


def test_a_bank_is_scored_as_one(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = json.loads((trained / "bank/evaluation.json").read_text())
    members = [
        json.loads((trained / f"bank/member-{number}/evaluation.json").read_text())["model"]["parameters"]
        for number in range(3)
    ]
    assert scores["model"]["parameters"] == sum(members)
    assert main(["evaluate", str(trained / "bank"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    # The first came from coded answers.
    assert again["scores"]["mean_iou"] == pytest.approx(scores["scores"]["mean_iou"], abs=1e-3)
    assert main(["evaluate", str(trained / "bank"), "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3


def test_a_bank_teaches(trained: Path) -> None:
    result = segshrink.distill(trained / "recipe.yaml", teacher=trained / "bank", out=trained / "student", doctor=False)
    record = segshrink.RunFolder(result.folder).run()
    assert record.teacher == str(trained / "bank")
    assert result.mean_iou["teacher"] == segshrink.RunFolder(trained / "bank").evaluation().scores.mean_iou


def test_a_finished_bank_is_left_as_it_is_and_another_refused(trained: Path) -> None:
    weights = trained / "bank/member-1/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    segshrink.train(trained / "recipe.yaml", out=trained / "bank", resume=True)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(FileError, match="--resume"):
        segshrink.train(trained / "recipe.yaml", out=trained / "bank")
    other = load_recipe(trained / "recipe.yaml", ["seed=5"])
    with pytest.raises(ConfigError, match="another recipe"):
        segshrink.train(other, out=trained / "bank", resume=True)


def test_watch_follows_one_teacher_after_the_other(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(trained / "bank")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [f"member-{number}: epoch 2/2" for number in range(3)]
    assert all(", finished after " in line for line in lines)


def test_inspect_counts_independent_groups(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(trained / "scenes/dataset.yaml")
    main(["inspect", data])
    assert "2 groups of training images, 2 of them independent" in capsys.readouterr().out
    main(["inspect", data, "split.overlaps=[[train/images/t0, train/images/t2]]"])
    assert "1 of them independent; the same ground is in north and south" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["teacher.folds=3"], "2 groups"),
        (["teacher.folds=4"], "members lists 3"),
        (["teacher.members=[{id: unet}]", "teacher.folds=null"], "members lists 1"),
    ],
)
def test_banks_that_cant_be_are_refused(trained: Path, tmp_path: Path, overrides: list[str], expected: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=expected):
        segshrink.train(load_recipe(trained / "recipe.yaml", overrides), out=tmp_path / "bank")
