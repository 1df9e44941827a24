"""What a run keeps when it is judged, stopped, moved and gone on with, and what `train` refuses."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file

from segshrink.config import Recipe, Term
from segshrink.data import CropModule, open_dataset
from segshrink.errors import ConfigError, FileError
from segshrink.evaluation import Confusion
from segshrink.losses import build_terms
from segshrink.models import build_model
from segshrink.teachers import TorchTeacher
from segshrink.training import SegmentationTask, evaluate_run, hardware, run, train

from .conftest import changed, record_of, rows_of, stop_at

Scores = Callable[[list[float]], None]


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Scores:
    """Lets validations give these mIoUs, one after the other."""

    def plan(values: list[float]) -> None:
        left = iter(values)

        class Planned:
            def __init__(self, value: float) -> None:
                self.mean_iou = value

        monkeypatch.setattr(Confusion, "scores", lambda self: Planned(next(left)))

    return plan


def best_epoch(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["epoch"]) + 1


@pytest.mark.parametrize(
    ("epochs", "every", "measured"), [(6, 4, [4, 6]), (5, 9, [5]), (4, 2, [2, 4]), (3, 1, [1, 2, 3])]
)
def test_the_last_epoch_is_judged_and_losses_are_measured_every_epoch(
    short: Recipe, tmp_path: Path, epochs: int, every: int, measured: list[int]
) -> None:
    train(changed(short, teacher__training__epochs=epochs, teacher__training__validate_every=every), out=tmp_path)
    rows = rows_of(tmp_path)
    assert [int(row["epoch"]) for row in rows if row["val/mean_iou"]] == measured
    assert all(float(row["val/loss"]) > 0 for row in rows)
    assert len(rows) == epochs


def test_of_equal_epochs_the_last_is_handed_over(short: Recipe, tmp_path: Path, scores: Scores) -> None:
    scores([0.2, 0.5, 0.4, 0.5, 0.5, 0.1])
    assert train(short, out=tmp_path).mean_iou == 0.5
    assert best_epoch(tmp_path) == 5


def test_a_run_that_was_moved_keeps_its_best_epoch(short: Recipe, tmp_path: Path, scores: Scores) -> None:
    scores([0.9, 0.2, 0.3, 0.4, 0.5, 0.6])
    with pytest.raises(KeyboardInterrupt):
        train(short, out=tmp_path / "here", progress=stop_at(5))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert train(short, out=tmp_path / "there", resume=True).mean_iou == pytest.approx(0.9)
    assert best_epoch(tmp_path / "there") == 1
    assert not (tmp_path / "here").exists()


def test_a_run_that_stopped_early_trains_no_further(
    short: Recipe, tmp_path: Path, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores([0.9, 0.5, 0.95, 0.96, 0.97, 0.98])
    patient = changed(short, teacher__training__patience=1)

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(run, "_save_kept", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(patient, out=tmp_path)
    result = train(patient, out=tmp_path, resume=True)
    assert (result.mean_iou, result.steps, record_of(tmp_path)["epochs"]) == (pytest.approx(0.9), 4, 2)
    assert best_epoch(tmp_path) == 1
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileError, match="model is gone"):
        train(patient, out=tmp_path, resume=True)


def test_the_last_averaged_state_is_handed_over_and_validation_scenes_are_read_once(
    short: Recipe, tmp_path: Path, scores: Scores
) -> None:
    scores([0.4, 0.9])
    last = changed(short, teacher__training__keep="last", teacher__training__ema_decay=0.5)
    with pytest.raises(KeyboardInterrupt):
        train(last, out=tmp_path, progress=stop_at(3))
    result = train(last, out=tmp_path, resume=True)
    assert result.mean_iou == pytest.approx(0.4)
    assert [row["epoch"] for row in rows_of(tmp_path) if row["val/loss"] or row["val/mean_iou"]] == ["6"]
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    averaged = {name.removeprefix("model.network."): value for name, value in checkpoint["state_dict"].items()}
    handed_over = load_file(tmp_path / "model/model.safetensors")
    assert all(torch.equal(averaged[name], value) for name, value in handed_over.items())
    plain = checkpoint["current_model_state"]
    assert any(not torch.equal(plain[f"model.network.{name}"], value) for name, value in handed_over.items())
    assert not (tmp_path / "checkpoints/best.ckpt").exists()


def test_patience_has_nothing_to_go_by_where_the_last_epoch_is_kept(short: Recipe) -> None:
    with pytest.raises(ValueError, match="keep: last"):
        changed(short, teacher__training__keep="last", teacher__training__patience=1)


def test_patience_counts_measured_epochs(short: Recipe, tmp_path: Path, scores: Scores) -> None:
    scores([0.9, 0.5, 0.6])
    result = train(changed(short, teacher__training__patience=1, teacher__training__validate_every=2), out=tmp_path)
    assert result.steps == 8


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = changed(short, teacher__training__threads=None, teacher__training__epochs=2)
    before = torch.get_num_threads()
    used = []

    def note(done: int, total: int, text: str) -> None:
        used.append(torch.get_num_threads())
        if len(used) == 1:
            raise KeyboardInterrupt

    try:
        monkeypatch.setattr(run, "free_threads", lambda: 2)
        with pytest.raises(KeyboardInterrupt):
            train(free, out=tmp_path, progress=note)
        monkeypatch.setattr(run, "free_threads", lambda: 1)
        train(free, out=tmp_path, progress=note, resume=True)
    finally:
        torch.set_num_threads(before)
    assert set(used) == {2}


def test_an_older_run_is_gone_on_with(short: Recipe, tmp_path: Path, scores: Scores) -> None:
    """Checkpoints name their callbacks' states after Lightning's classes, whatever ours are called."""
    scores([number / 100 for number in range(20)])
    patient = changed(short, teacher__training__patience=3)
    with pytest.raises(KeyboardInterrupt):
        train(patient, out=tmp_path, progress=stop_at(3))
    states = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
    assert sum(name.startswith("ModelCheckpoint{") for name in states) == 2
    assert sum(name.startswith("EarlyStopping{") for name in states) == 1
    record = record_of(tmp_path)
    record["machine"] = {"device": "cpu"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert train(patient, out=tmp_path, resume=True).steps == 12


def test_relative_paths_of_a_recipe_are_kept_absolute(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = changed(short, data__root="scenes", teacher__training__epochs=1)
    train(relative, out=Path("run"))
    monkeypatch.chdir("/")
    assert evaluate_run(tmp_path / "run").scores.mean_iou > 0
    monkeypatch.chdir(tmp_path)
    assert train(relative, out=Path("run"), resume=True).steps == 2


@pytest.fixture
def teachers(recipe: Recipe) -> Iterator[list[TorchTeacher]]:
    """Two teachers that differ in their weights."""
    classes = open_dataset(recipe.data).classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield [TorchTeacher(build_model("unet", classes, options={"width": 4, "depth": 2}), name=name) for name in "ab"]


def test_a_teacher_is_learned_from_or_refused(short: Recipe, tmp_path: Path, teachers: list[TorchTeacher]) -> None:
    quick = changed(short, student__training__epochs=1)
    train(quick, out=tmp_path / "student", teacher=teachers[0])
    record = record_of(tmp_path / "student")
    assert (record["role"], record["teacher"]) == ("student", "a")
    assert "val/pixel_kl" in rows_of(tmp_path / "student")[0]
    for role in ("teacher", "control"):
        with pytest.raises(ConfigError, match=f"a {role} learns from the labels alone"):
            train(quick, out=tmp_path / role, role=role, teacher=teachers[0])
        assert not (tmp_path / role).exists()


def test_a_run_does_not_go_on_with_another_teacher(short: Recipe, tmp_path: Path, teachers: list[TorchTeacher]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, out=tmp_path, teacher=teachers[0], progress=stop_at(3))
    with pytest.raises(ConfigError, match=r"learns from a, not from b"):
        train(short, out=tmp_path, teacher=teachers[1], resume=True)
    assert record_of(tmp_path)["teacher_identity"] == teachers[0].identity
    assert record_of(tmp_path)["status"] == "stopped"


class StopBefore(lightning.Callback):
    """Saves a checkpoint and stops before a batch of the first epoch."""

    def __init__(self, batch: int, checkpoint: Path) -> None:
        self.batch = batch
        self.checkpoint = checkpoint

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *arguments: Any) -> None:
        if arguments[-1] == self.batch - 1:
            trainer.save_checkpoint(self.checkpoint)
            trainer.should_stop = True


def draws(recipe: Recipe, *callbacks: lightning.Callback, checkpoint: Path | None = None) -> list[float]:
    """Fit with two batches a step; return what the network draws at random in each batch."""
    dataset = open_dataset(recipe.data)
    drawn: list[float] = []
    model = build_model("unet", dataset.classes, options={"width": 4, "depth": 2})
    model.register_forward_pre_hook(lambda *_: drawn.append(float(torch.rand(1))))
    trainer = lightning.Trainer(
        max_epochs=2,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[*callbacks],
    )
    task = SegmentationTask(model, seed=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|LeafSpec).*")
        trainer.fit(task, CropModule(dataset, crops=recipe.crops), ckpt_path=checkpoint, weights_only=True)
    return drawn


def test_batches_that_share_a_step_draw_their_own_random_numbers(recipe: Recipe, tmp_path: Path) -> None:
    crops = changed(recipe, crops__per_epoch=16)
    whole = draws(crops)
    assert len(whole) == len(set(whole)) == 8
    assert draws(crops) == whole
    checkpoint = tmp_path / "stopped.ckpt"
    before = draws(crops, StopBefore(2, checkpoint))
    after = draws(crops, checkpoint=checkpoint)
    assert before[:2] == whole[:2]
    assert after == whole[2:]


def test_a_run_records_its_memory_and_processor_time_over_resumes(short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, out=tmp_path, progress=stop_at(3))
    stopped = record_of(tmp_path)
    assert 0 < stopped["memory_beyond_libraries_mb"] < stopped["peak_memory_mb"]
    assert stopped["gpu_peak_memory_mb"] is None or torch.cuda.is_available()
    (tmp_path / "run.json").write_text(json.dumps({**stopped, "peak_memory_mb": 1e6, "processor_seconds": 1e6}))
    train(short, out=tmp_path, resume=True)
    finished = record_of(tmp_path)
    assert finished["peak_memory_mb"] == 1e6, "the largest"
    assert finished["memory_beyond_libraries_mb"] >= stopped["memory_beyond_libraries_mb"]
    assert finished["processor_seconds"] > 1e6, "the sum"


def test_what_a_training_takes_is_recorded_after_every_epoch(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a killed one has lost at most its last epoch's."""
    records = []

    def look(done: int, total: int, step: str) -> None:
        records.append(record_of(tmp_path))

    spent = iter(range(0, 1000, 10))
    monkeypatch.setattr(hardware, "processor_seconds", lambda: next(spent))
    train(changed(short, teacher__training__epochs=2), out=tmp_path, progress=look)
    assert [record["processor_seconds"] for record in records] == [10, 10, 20, 20], "at first, after an epoch"
    assert all(record["status"] == "running" and record["peak_memory_mb"] > 0 for record in records)
    assert record_of(tmp_path)["processor_seconds"] == 40, "after two epochs, at the end"


def test_the_memory_of_a_training_is_its_own(short: Recipe, tmp_path: Path) -> None:
    quick = changed(short, teacher__training__epochs=1)
    ballast = b"x" * 1_000_000_000
    train(quick, out=tmp_path / "with")
    del ballast
    train(quick, out=tmp_path / "without")
    first, second = (record_of(tmp_path / name)["peak_memory_mb"] for name in ("with", "without"))
    assert first > second + 500


def test_an_opened_data_set_and_built_terms_are_used(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(short.data)
    monkeypatch.setattr(run, "open_dataset", lambda description: pytest.fail("opened again"))
    terms = build_terms([Term(name="dice")])
    train(changed(short, teacher__training__epochs=1), out=tmp_path, dataset=dataset, terms=terms)
    assert "train/dice" in rows_of(tmp_path)[0]
