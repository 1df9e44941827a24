"""Run folders of strangers whose records don't hold what they should: one sentence each, from every verb."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, quick_profiles

NO_OBJECT: list[Any] = [[], 3, "text", None]
LIES: dict[str, list[Any]] = {
    "run.json": [
        *NO_OBJECT,
        {"segshrink": "0.1.0"},
        {"segshrink": "0.1.0", "role": [], "status": {}, "machine": 3},
        {"segshrink": "0.1.0", "role": "control", "status": "finished", "best_mean_iou": "high", "machine": []},
        {"segshrink": "0.1.0", "role": "control", "status": "finished", "best_mean_iou": float("inf"), "teachers": 3},
        {"segshrink": "0.1.0", "role": "student", "status": "finished", "teachers": [{"source": 3}]},
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


@pytest.fixture
def run(segshrink: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(import_module("segshrink.training.evaluate_run"), "profile_models", quick_profiles)
    folder = tmp_path / "run"
    result = segshrink("train", recipe, "--control", "--out", folder, "student.training.epochs=1")
    assert result.status == 0, result.err
    return folder


@pytest.mark.parametrize("name", LIES)
def test_every_verb_says_one_sentence(segshrink: Run, run: Path, recipe: Path, tmp_path: Path, name: str) -> None:
    assert (run / name).is_file()
    spoiled = tmp_path / "spoiled"
    told = 0
    for lie in LIES[name]:
        for verb in (
            ("report", spoiled),
            ("evaluate", spoiled),
            ("evaluate", run, "--out", tmp_path / "judged", "--reference", spoiled),
            ("train", recipe, "--control", "--out", spoiled, "--resume", "student.training.epochs=1"),
            ("distill", recipe, "--teacher", spoiled, "--out", tmp_path / "student", "student.training.epochs=1"),
            ("doctor", "--student", spoiled, "--teacher", run),
        ):
            for folder in (spoiled, tmp_path / "student", tmp_path / "judged"):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(run, spoiled)
            (spoiled / name).write_text(json.dumps(lie))
            result = segshrink(*verb)
            assert "Traceback" not in result.err, (lie, verb)
            if result.status and "mIoU" not in result.out:  # the doctor's status tells of what it found, too
                assert result.status in (1, 2), (lie, verb)
                assert result.sentence
                told += 1
    assert told >= len(LIES[name])
