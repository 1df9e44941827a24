"""Hyper-parameter search on real trainings of tiny networks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

import segshrink
from segshrink.config import Recipe, load_recipe
from segshrink.errors import ConfigError, FileError
from segshrink.study_records import TuningRecord
from segshrink.tuning.study import Settings

from .test_verbs import tiny_recipe

pytestmark = pytest.mark.usefixtures("quick_runs")
RATE = "student.training.learning_rate"
SPACE = {RATE: {"log": [1e-3, 1e-1]}, "distillation.alpha": {"uniform": [0.2, 0.8]}}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> segshrink.TuneResult:
    root = tmp_path_factory.mktemp("tuned")
    return segshrink.tune(tiny_recipe(root), out=root / "study", space=SPACE, settings=Settings(trials=2))


def test_student_and_control_get_as_many_trials_and_the_recipe_is_the_first(tuned: segshrink.TuneResult) -> None:
    assert tuned.finished
    assert set(tuned.studies) == {"student", "control"}
    for study in tuned.studies.values():
        assert [trial.state for trial in study.trials] == ["complete", "complete"]
        assert [trial.recipe for trial in study.trials] == [True, False]
        assert study.trials[0].params[RATE] == 0.01
        assert [percent for percent, _ in study.trials[0].curve] == [50, 100]
        best = study.trial(study.best)
        assert best is not None
        assert best.values == max(trial.values for trial in study.trials)
    assert set(tuned.studies["control"].trials[1].params) == {RATE}, "a control has no alpha"


def test_a_trial_is_a_run_folder_whose_score_is_the_trials(tuned: segshrink.TuneResult) -> None:
    for role, study in tuned.studies.items():
        for trial in study.trials:
            folder = segshrink.RunFolder(tuned.folder / role / f"{trial.number:04d}")
            record = folder.run()
            assert (record.role, record.status) == (role, "finished")
            assert record.best_mean_iou == trial.values[0]
            assert folder.recipe().student.training.learning_rate == trial.params[RATE]  # type: ignore[union-attr]


def test_the_best_recipe_has_the_best_values_and_names_the_teacher(tuned: segshrink.TuneResult) -> None:
    recipe = load_recipe(tuned.recipes["student"])
    best = tuned.studies["student"].trial(tuned.studies["student"].best)
    assert best is not None
    assert recipe.student is not None
    assert recipe.student.training.learning_rate == best.params[RATE]
    assert recipe.distillation.alpha == best.params["distillation.alpha"]
    assert [source.source for source in recipe.distillation.teachers] == [str(tuned.folder / "teacher-run")]
    assert tuned.recipes["control"].name == "best-control.yaml"


def test_the_page_and_its_numbers_are_of_the_study(tuned: segshrink.TuneResult) -> None:
    page = tuned.report.read_text()
    best = tuned.studies["student"].trial(tuned.studies["student"].best)
    assert best is not None
    assert f"{best.values[0]:.3f}" in page
    assert 'http-equiv="refresh"' not in page, "nothing runs any more"
    assert (tuned.folder / "figures" / "history_miou.png").stat().st_size > 0
    record = TuningRecord.read(tuned.folder / "study.json")
    assert record.studies == tuple(tuned.studies.values())


def test_more_trials_go_on_where_the_study_ended(tuned: segshrink.TuneResult, tmp_path: Path) -> None:
    recipe = tuned.folder.parent / "recipe.yaml"
    with pytest.raises(FileError, match="--resume"):
        segshrink.tune(recipe, out=tuned.folder, space=SPACE)
    with pytest.raises(ConfigError, match="another"):
        segshrink.tune(recipe, out=tuned.folder, resume=True)
    more = segshrink.tune(recipe, out=tuned.folder, space=SPACE, settings=Settings(trials=3), resume=True)
    for role, study in more.studies.items():
        assert study.trials[:2] == tuned.studies[role].trials
        assert len(study.trials) == 3


def taught_recipe(folder: Path, tuned: segshrink.TuneResult, **training: object) -> Path:
    """A recipe whose teacher is trained."""
    recipe = tiny_recipe(folder)
    content = yaml.safe_load(recipe.read_text())
    content["student"]["training"] |= training
    content["distillation"] = {"teachers": [{"source": str(tuned.folder / "teacher-run")}]}
    recipe.write_text(yaml.safe_dump(content))
    return recipe


def test_a_killed_worker_leaves_a_run_that_another_ends(tuned: segshrink.TuneResult, tmp_path: Path) -> None:
    rate = {"log": [1e-3, 1e-1], "default": 0.01}
    recipe = taught_recipe(tmp_path, tuned, epochs=40, learning_rate=rate)
    out = tmp_path / "study"
    command = [sys.executable, "-m", "segshrink.cli", "tune", str(recipe), "--out", str(out), "--no-control", "-n", "1"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = out / "student" / "0000"
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert worker.poll() is None
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    rows = len((run / "metrics.csv").read_text().splitlines())
    assert rows < 41
    (lease,) = (out / "journal.log.leases").iterdir()
    os.utime(lease, (0, 0))
    resumed: list[float] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        if stage.startswith("student"):
            resumed.append(done)

    result = segshrink.tune(recipe, out=out, settings=Settings(trials=1), control=False, resume=True, progress=progress)
    assert [trial.state for trial in result.studies["student"].trials] == ["complete"]
    assert result.studies["student"].trials[0].recipe
    assert resumed[0] > 2 * (rows - 2), "it goes on from the last whole epoch"
    assert [path.name for path in (out / "student").iterdir()] == ["0000"]


def test_what_a_lost_worker_reported_is_not_reported_again(
    tuned: segshrink.TuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be lost between its report and its checkpoint: the one that goes on trains that epoch again."""
    recipe, settings = taught_recipe(tmp_path, tuned), Settings(trials=1)
    report = optuna.Trial.report

    def report_and_stop(trial: optuna.Trial, value: float, step: int) -> None:
        report(trial, value, step)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as stopping:
        stopping.setattr(optuna.Trial, "report", report_and_stop)
        with pytest.raises(KeyboardInterrupt):
            segshrink.tune(recipe, out=tmp_path / "study", space=SPACE, settings=settings, control=False)
    shutil.rmtree(tmp_path / "study" / "student" / "0000" / "checkpoints", ignore_errors=True)
    result = segshrink.tune(recipe, out=tmp_path / "study", space=SPACE, settings=settings, control=False, resume=True)
    trials = result.studies["student"].trials
    assert [trial.state for trial in trials] == ["complete"]
    assert [percent for percent, _ in trials[0].curve] == [50, 100]


def test_accuracy_against_latency(tuned: segshrink.TuneResult, tmp_path: Path) -> None:
    settings = Settings(trials=2, objectives=("miou", "latency", "parameters"), sampler="nsga2")
    space = {"student.model.options.width": {"choice": [4, 8]}}
    result = segshrink.tune(
        tiny_recipe(tmp_path), out=tmp_path / "study", space=space, settings=settings, control=False
    )
    (study,) = result.studies.values()
    assert [trial.values[1] for trial in study.trials] == [7, 7]
    assert all(trial.load is not None for trial in study.trials)
    for trial in study.trials:
        run = segshrink.RunFolder(result.folder / "student" / f"{trial.number:04d}")
        assert trial.values[2] == segshrink.count_parameters(segshrink.load_model(run.path))
    assert study.best in study.front
    assert (result.folder / "figures" / "pareto_latency.png").exists()


def test_workers_of_one_call_share_the_trials(tuned: segshrink.TuneResult, tmp_path: Path) -> None:
    recipe = taught_recipe(tmp_path, tuned)
    settings = Settings(trials=2, sampler="random")
    result = segshrink.tune(recipe, out=tmp_path / "study", space=SPACE, settings=settings, workers=2, control=False)
    assert result.finished
    assert [trial.state for trial in result.studies["student"].trials] == ["complete", "complete"]


def test_an_error_that_can_not_be_sent_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class ForeignError(Exception):
        """One that pickle can't send, as its class has no name of its own."""

    def failing(plan: object, *, resume: bool) -> None:
        raise ForeignError("the handle is gone")

    module = import_module("segshrink.workflows.tune")
    monkeypatch.setattr(module, "join", failing)
    errors = get_context("spawn").SimpleQueue()
    module._worker(SimpleNamespace(functions=[]), errors)
    error = errors.get()
    assert isinstance(error, RuntimeError)
    assert str(error) == "ForeignError: the handle is gone"


def test_what_can_not_be_tuned_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    for place, value, match in (
        ("teacher.training.epochs", {"int": [1, 3]}, "train the student"),
        (RATE, {"log": [0.02, 0.1]}, "0.01"),
        ("student.training.rate", {"log": [0.02, 0.1]}, "student.training.rate"),
        ("crops.size", {"choice": [32, 16]}, "crops.size"),
        ("distillation.alpha", {"uniform": [0, 1]}, "--no-control"),
    ):
        with pytest.raises(ConfigError, match=match):
            segshrink.tune(recipe, out=tmp_path / "study", space={place: value})
    assert not (tmp_path / "study").exists()


def test_the_usual_values_are_open_where_nothing_is(tmp_path: Path) -> None:
    from segshrink.tuning.space import space_of

    recipe: Recipe = load_recipe(tiny_recipe(tmp_path))
    space = space_of("student", recipe, {}, widths=True)
    assert set(space) == {
        RATE,
        "student.training.weight_decay",
        "student.training.epochs",
        "crops.size",
        "crops.batch_size",
        "distillation.alpha",
        "distillation.temperature",
        "student.model.options.width",
    }
    assert space["student.model.options.width"].choice == [2, 3, 4, 6]
    assert space["crops.size"].choice == [32, 64]
    assert set(space) - set(space_of("control", recipe, {}, widths=True)) == {
        "distillation.alpha",
        "distillation.temperature",
    }
