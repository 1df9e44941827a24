"""What `train` refuses, and on which hardware it trains."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from segshrink.config import Recipe
from segshrink.data import CropModule, open_dataset
from segshrink.data.crop_dataset import CropDataset
from segshrink.errors import ConfigError, DataError, FileError, TrainingError
from segshrink.folder_lock import claimed
from segshrink.prediction.runtimes.torch import computes_in_bf16
from segshrink.run_folder import RunFolder
from segshrink.training import train
from segshrink.training.hardware import lightning_precision

from .conftest import changed, record_of


def test_masks_without_a_label_are_refused_before_training(short: Recipe, tmp_path: Path) -> None:
    classes = [{"name": name} for name in ("Ground", "Roof", "Water")]
    for entry, color in zip(classes, ("#010101", "#020202", "#030303"), strict=True):
        entry["color"] = color
    colors = [entry.color for entry in short.data.classes]
    blind = changed(short, data__classes=classes, data__ignore=colors)
    with pytest.raises(DataError, match="2 validation scenes of 'rectangles'"):
        train(blind, out=tmp_path)
    assert not (tmp_path / "metrics.csv").exists()


def test_crops_that_do_not_fit_into_memory_are_refused(short: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"crops\.size=16384 and crops\.batch_size=65536 need more than \d+"):
        train(changed(short, crops__size=16384, crops__batch_size=65536), out=tmp_path)


def test_bf16_is_refused_where_nothing_computes_in_it(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segshrink.training.hardware.computes_in_bf16", lambda device: False)
    with pytest.raises(ConfigError, match=r"precision=bf16.*auto or 32"):
        train(changed(short, teacher__training__precision="bf16"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_emulated_bf16_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not computes_in_bf16(torch.device("cuda"))


def test_gpus_that_do_not_compute_in_bf16_take_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported, precision in ((True, "bf16-mixed"), (False, "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, s=supported: s)
        assert lightning_precision("auto") == precision


def test_a_mac_trains_on_its_cpu(short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here was tried on Apple's GPUs, so Lightning isn't left to choose them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    train(changed(short, teacher__training__epochs=1), out=tmp_path)
    assert record_of(tmp_path)["machine"]["device"] == "cpu"


def test_two_processes_do_not_train_into_one_folder(short: Recipe, tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def other() -> None:
        try:
            train(short, out=tmp_path)
        except FileError as error:
            refused.append(error)

    with claimed(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [str(tmp_path) in str(error) for error in refused] == [True]


def test_a_loading_process_that_is_killed_is_named_and_fewer_go_on(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: CropDataset, key: object) -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(CropDataset, "__getitem__", die)
    with pytest.raises(TrainingError, match=r"crops\.workers"):
        train(changed(short, crops__workers=1), out=tmp_path)
    assert record_of(tmp_path)["status"] == "stopped"
    monkeypatch.undo()
    train(changed(short, crops__workers=0, trackers=["tensorboard"]), out=tmp_path, resume=True)
    kept = RunFolder(tmp_path).recipe()
    assert (kept.crops.workers, [tracker.name for tracker in kept.trackers]) == (0, ["tensorboard"])


def test_small_crops_of_validation_cost_little(short: Recipe) -> None:
    dataset = open_dataset(short.data)
    for per_epoch, most in ((8, 16), (160, 20), (10_000, 32)):
        crops = changed(short, crops__per_epoch=per_epoch, crops__size=32).crops
        module = CropModule(dataset, crops=crops)
        shown = sum(len(batch["image"]) for batch in module.val_dataloader()[1])
        assert 0 < shown <= most
