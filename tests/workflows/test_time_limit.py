"""How many steps fit into a time; nothing here measures one."""

from __future__ import annotations

import itertools
from importlib import import_module
from pathlib import Path

import pytest

import segshrink
from segshrink.config import Recipe, load_recipe
from segshrink.data import open_dataset
from segshrink.errors import ConfigError, UsageError
from segshrink.run_folder import RunFolder
from segshrink.training.pace import Pace, measure_pace
from segshrink.workflows.time_limit import fitted, seconds_of

from .test_verbs import tiny_recipe


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1h 5min 3s", 3903), (40, 40), ("90.5", 90.5), ("0.5d", 43200)],
)
def test_times_are_read(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 weeks", "-1h", "0", "h", "nan", "1e3", "1h30", "2h 15", "1 000"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"written as 2h|more than nothing"):
        seconds_of(text)


def recipe(tmp_path: Path, **training: object) -> Recipe:
    overrides = [f"student.training.{key}={value}" for key, value in training.items()]
    return load_recipe(tiny_recipe(tmp_path), overrides)


@pytest.mark.parametrize(
    ("training", "seconds", "expected"),
    [
        # 200 s less an evaluation (4 s) and four validations (8 s) leave 376 steps of half a second, 18 an epoch.
        ({"epochs": 20, "validate_every": 5}, 200, (20, 5, 72)),
        # More time, more steps; as many epochs and validations.
        ({"epochs": 20, "validate_every": 5}, 2000, (20, 5, 792)),
        # 20 validations would take 40 of 46 s; five fit into a quarter: 72 steps.
        ({"epochs": 20}, 50, (20, 4, 12)),
        # Fewer steps than epochs: an epoch a step.
        ({"epochs": 20}, 10, (8, 8, 4)),
        # Nothing is chosen by scores: one validation at the end.
        ({"epochs": 20, "keep": "last"}, 200, (20, 20, 76)),
    ],
)
def test_a_training_takes_the_steps_that_fit(
    training: dict[str, object], seconds: float, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    chosen = fitted(recipe(tmp_path, **training), "student", Pace(step=0.5, validation=2.0), seconds)
    assert chosen.student is not None
    settings = chosen.student.training
    assert (settings.epochs, settings.validate_every, chosen.crops.per_epoch) == expected
    validations = 1 if settings.keep == "last" else -(-settings.epochs // settings.validate_every)
    steps = settings.epochs * (chosen.crops.per_epoch or 0) // chosen.crops.batch_size
    assert 0.5 * steps + 2 * validations + 4 <= seconds


def test_a_time_for_few_steps_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fitted(recipe(tmp_path, epochs=5), "student", Pace(step=2.0, validation=0.0), 80)
    assert "student: 40 steps teach little; 100 would take 2 min" in caplog.text
    caplog.clear()
    fitted(recipe(tmp_path, epochs=5), "student", Pace(step=2.0, validation=0.0), 210)
    assert "teach little" not in caplog.text


def test_a_time_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the time is too short: a single step of the student, .* about 4 s more"):
        fitted(recipe(tmp_path), "student", Pace(step=1.0, validation=2.0), 3)


def test_the_pace_is_that_of_the_steps_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("segshrink.training.pace.time.perf_counter", lambda: float(next(ticks)))
    opened = recipe(tmp_path)
    pace = measure_pace(opened, role="control", dataset=open_dataset(opened.data))
    assert pace.step >= 1
    assert pace.validation >= 1
    assert opened.crops.per_epoch == 8


@pytest.mark.usefixtures("quick_runs")
def test_distill_takes_the_steps_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 1,000 s and a validation of 1 s: 15,000 of 16,000 s hold teacher (3) and two students (7 each)."""
    monkeypatch.setattr(import_module("segshrink.workflows.time_limit"), "measure_pace", lambda *_, **__: Pace(1000, 1))
    made = segshrink.distill(
        tiny_recipe(tmp_path), out=tmp_path / "run", control=True, doctor=False, force=True, time="16000s"
    )
    folder = RunFolder(made.folder)
    assert RunFolder(folder.path / "teacher-run").run().steps == 2
    assert folder.run().steps == folder.control.run().steps == 6
    again = segshrink.distill(
        tmp_path / "recipe.yaml", out=tmp_path / "run", control=True, doctor=False, force=True, time="9h", resume=True
    )
    assert again.mean_iou == made.mean_iou
