"""A training in several processes on the command line: what becomes of it where one of them ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from segshrink.training import callbacks
from segshrink.training.processes import follow

DEVICES = "teacher.training.devices=2"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that the other process is sent after a step of the second epoch, one a training."""
    signals: list[int] = []
    former = callbacks.StepProgress.on_train_batch_end

    def step(self, trainer, *arguments) -> None:
        former(self, trainer, *arguments)
        if trainer.global_step == 3 and signals:
            (other,) = (child for child in psutil.Process().children() if "segshrink.training" in child.cmdline())
            other.send_signal(signals.pop(0))

    monkeypatch.setattr(callbacks.StepProgress, "on_train_batch_end", step)
    return signals


def test_a_training_whose_other_process_ends_can_be_gone_on_with(
    segshrink, recipe: Path, tmp_path: Path, told: list[int]
) -> None:
    told += [signal.SIGKILL, signal.SIGTERM]
    out = tmp_path / "run"
    killed = segshrink("train", recipe, "-o", out, DEVICES)
    assert killed.status == 1
    assert "another process of this training has ended" in killed.err
    assert "Traceback" not in killed.err
    ended = segshrink("train", recipe, "-o", out, DEVICES, "--resume")
    assert ended.status == 143, ended.err
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert [child for child in psutil.Process().children() if "segshrink.training" in child.cmdline()] == []
    # Elsewhere, on one device.
    assert segshrink("train", recipe, "-o", out, "--resume").status == 0
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["steps"]) == ("finished", 4)
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_start_that_does_not_fit_is_refused_once(
    segshrink, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    result = segshrink("train", recipe, "-o", tmp_path / "run")
    assert result.status == 1
    assert ("torchrun --nproc-per-node 1" in result.err) == (rank == "0")
    assert not (tmp_path / "run").exists()


def test_a_process_that_another_leads_takes_part(
    segshrink, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    followed = []
    monkeypatch.setattr(f"{follow.__module__}.follow", lambda: followed.append(True))
    result = segshrink("distill", recipe, "-o", tmp_path / "run", "student.training.devices=2")
    assert (result.status, result.out, followed) == (0, "", [True])
    assert not (tmp_path / "run").exists()
