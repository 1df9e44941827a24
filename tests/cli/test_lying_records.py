"""Run folders of strangers whose records don't hold what they should: one sentence each, from every verb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from segshrink.cli import main
from segshrink.errors import DataError, FileError
from segshrink.run_folder import RunFolder

from .conftest import Run, write_data, write_recipe

# Every entry is of the right type; whether its teachers can be opened is asked by those who open them.
HOLLOW = {"segshrink": "0.1.0", "role": "student", "status": "finished", "teachers": [{"source": 3}]}
NO_OBJECT: list[Any] = [[], 3, "text", None]
LIES: dict[str, list[Any]] = {
    "run.json": [
        *NO_OBJECT,
        {"segshrink": "0.1.0"},
        {"segshrink": "0.1.0", "role": [], "status": {}, "machine": 3},
        {"segshrink": "0.1.0", "role": "control", "status": "finished", "best_mean_iou": "high", "machine": []},
        {"segshrink": "0.1.0", "role": "control", "status": "finished", "best_mean_iou": float("inf"), "teachers": 3},
        HOLLOW,
    ],
    "evaluation.json": [
        *NO_OBJECT,
        {"segshrink": "0.1.0"},
        {"segshrink": "0.1.0", "scores": 3, "classes": 3, "model": 3},
        {"segshrink": "0.1.0", "scores": {"mean_iou": "high"}, "classes": [3], "model": {"name": []}},
        {"segshrink": "0.1.0", "data": [], "split": {}},
    ],
    "profile.json": [*NO_OBJECT, {"segshrink": "0.1.0", "session": [], "load": 3, "turns": 3, "latency_ms": "quick"}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a control, with its recipe beside it."""
    home = tmp_path_factory.mktemp("home")
    recipe = write_recipe(home, write_data(home))
    assert main(["train", str(recipe), "--control", "--out", str(home / "run"), "student.training.epochs=1"]) == 0
    return home / "run"


@pytest.mark.parametrize(("name", "lie"), [(name, lie) for name, lies in LIES.items() for lie in lies], ids=repr)
def test_a_record_that_lies_about_types_is_refused_by_name(tmp_path: Path, name: str, lie: Any) -> None:
    (tmp_path / name).write_text(json.dumps(lie))
    read = getattr(RunFolder(tmp_path), name.removesuffix(".json"))
    if lie is HOLLOW:
        assert read().role == "student"
        return
    with pytest.raises((DataError, FileError)) as caught:
        read()
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lie", "verbs"),
    [
        ("run.json", [], "report train distill"),
        ("run.json", HOLLOW, "train"),
        ("evaluation.json", [], "report train"),
        ("profile.json", [], "report train"),
    ],
)
def test_every_verb_says_one_sentence(
    segshrink: Run, run: Path, tmp_path: Path, name: str, lie: Any, verbs: str
) -> None:
    spoiled, recipe = tmp_path / "spoiled", run.parent / "recipe.yaml"
    told = []
    for verb in (
        ("report", spoiled),
        ("evaluate", spoiled),
        ("train", recipe, "--control", "--out", spoiled, "--resume", "student.training.epochs=1"),
        ("distill", recipe, "--teacher", spoiled, "--out", tmp_path / "student", "student.training.epochs=1"),
        ("doctor", "--student", spoiled, "--teacher", run),
    ):
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(run, spoiled)
        assert (spoiled / name).is_file()
        (spoiled / name).write_text(json.dumps(lie))
        result = segshrink(*verb)
        assert "Traceback" not in result.err, verb
        if result.status and "mIoU" not in result.out:  # the doctor's status tells of what it found, too
            assert result.status in (1, 2), verb
            assert result.sentence
            told.append(verb[0])
    assert told == verbs.split()
