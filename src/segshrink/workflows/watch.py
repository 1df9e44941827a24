"""Watching a training from elsewhere: how far it is, how well it does, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segshrink.errors import FileError
from segshrink.folder_lock import is_abandoned
from segshrink.run_folder import Metrics, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCORE = "val/mean_iou"


@dataclass(frozen=True)
class TrainingState:
    """What a run folder says of its training at one moment.

    Attributes:
        folder: The run folder.
        status: Whether it trains, was stopped (by a signal, an error, or because its process was killed), or is done.
        epoch: Epochs done.
        epochs: Epochs in all.
        seconds: Trained so far.
        seconds_left: To expect, from the epochs done; None before the first.
        metrics: Columns of ``metrics.csv``: name → (epochs, values).
    """

    folder: Path
    status: Literal["running", "stopped", "finished"]
    epoch: int
    epochs: int
    seconds: float
    seconds_left: float | None
    metrics: Metrics

    @property
    def latest(self) -> dict[str, float]:
        """The last value of every metric."""
        return {name: values[-1] for name, (_, values) in self.metrics.items()}

    def figure(self) -> Figure:
        """Draw losses and validation mIoU over the epochs."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.2), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        for name, (epochs, values) in self.metrics.items():
            if name in ("train/loss", "val/loss"):
                losses.plot(epochs, values, label=name)
            elif name == _SCORE:
                scores.plot(epochs, values, marker="o", label=name)
        for axes, title in ((losses, "Loss"), (scores, "Validation mIoU")):
            axes.set(title=title, xlabel="epoch", xlim=(0, self.epochs))
            if axes.lines:
                axes.legend()
        return figure


def watch(run: str | Path, *, every: float = 5.0) -> Iterator[TrainingState]:
    """Yield the state of a training now, and again whenever an epoch is done, until it ends; a bank's one by one.

    In a notebook::

        for state in segshrink.watch("runs/student"):
            clear_output(wait=True)
            display(state.figure())

    Args:
        run: Run folder; one that isn't there yet is waited for.
        every: Seconds between two looks.

    Raises:
        FileError: A file of the run can't be read.
    """
    folder = RunFolder(run)
    while not folder.has_run:
        time.sleep(every)
    for training in _trainings(folder):
        for state in _states(training, every):
            yield state
            if state.status == "stopped":
                return


def _trainings(folder: RunFolder) -> list[RunFolder]:
    """Return the folders of a bank's teachers, of which later ones may not be there yet; of another run, its own."""
    teacher = folder.recipe().teacher
    if folder.run().role != "teacher" or teacher is None or not teacher.is_bank:
        return [folder]
    return [folder.member(number) for number in range(len(teacher.models))]


def _states(folder: RunFolder, every: float) -> Iterator[TrainingState]:
    before = None
    while True:
        state = _state(folder)
        if state is not None and state != before:
            yield state
            before = state
        if state is not None and state.status != "running":
            return
        time.sleep(every)


def _state(folder: RunFolder) -> TrainingState | None:
    if not folder.has_run:
        return None
    run, recipe = folder.run(), folder.recipe()
    if run.status == "running" and is_abandoned(folder.path):
        run = folder.run()  # which may have come to its end meanwhile
        if run.status == "running":
            run = run.model_copy(update={"status": "stopped"})
    learner = recipe.teacher if run.role == "teacher" else recipe.student
    if learner is None or run.status is None:
        raise FileError(f"{folder.path} holds no training to watch; give the run folder of train or distill")
    metrics = folder.metrics()
    epochs_done, seconds = metrics.get("seconds", ([], []))
    done, trained = (int(epochs_done[-1]), seconds[-1]) if epochs_done else (0, 0.0)
    left = (learner.training.epochs - done) * trained / done if done and run.status == "running" else None
    return TrainingState(folder.path, run.status, done, learner.training.epochs, trained, left, metrics)
