from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import segshrink
from segshrink.cli import main
from segshrink.folder_lock import claimed
from segshrink.machine import ProcessIdentity

from .test_verbs import tiny_recipe

pytestmark = pytest.mark.usefixtures("quick_runs")


def test_a_training_is_followed_from_its_beginning_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, states = tmp_path / "run", []

    def follow() -> None:
        states.extend(segshrink.watch(run, every=0.02))

    watcher = threading.Thread(target=follow)
    watcher.start()
    segshrink.train(segshrink.load_recipe(tiny_recipe(tmp_path), ["teacher.training.epochs=3"]), out=run)
    watcher.join(timeout=600)
    assert [state.epoch for state in states] == sorted(state.epoch for state in states)
    assert (states[0].status, states[-1].status) == ("running", "finished")
    assert (states[-1].epoch, states[-1].epochs, states[-1].seconds_left) == (3, 3, None)
    epochs, scores = states[-1].metrics["val/mean_iou"]
    assert epochs[-1] == 3
    assert states[-1].latest["val/mean_iou"] == scores[-1]
    assert [len(axes.lines) for axes in states[-1].figure().axes] == [2, 1]
    assert main(["watch", str(run)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 3/3, loss ")
    assert ", val mIoU " in line
    assert ", finished after " in line


def test_the_time_left_follows_from_the_epochs_done(tmp_path: Path) -> None:
    run = tmp_path / "run"
    segshrink.train(segshrink.load_recipe(tiny_recipe(tmp_path), ["teacher.training.epochs=4"]), out=run)
    record = json.loads((run / "run.json").read_text())
    rows = (run / "metrics.csv").read_text().splitlines()
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}))
    (run / "metrics.csv").write_text("\n".join(rows[:3]) + "\n")
    with claimed(run):
        state = next(segshrink.watch(run))
    assert state.epoch == 2
    assert state.seconds_left == pytest.approx(state.seconds)
    # A process that was killed holds the folder no more, and may have left its lock.
    assert [state.status for state in segshrink.watch(run)] == ["stopped"]
    gone = replace(ProcessIdentity.own(), start=1)
    (run / ".segshrink-lock").write_text(json.dumps({"process": str(gone), "host": "here", "since": "then"}))
    assert [state.status for state in segshrink.watch(run)] == ["stopped"]
