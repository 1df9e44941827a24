"""Supervised training of one network, measured and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segshrink.config import Recipe, as_recipe
from segshrink.data import Dataset, open_dataset
from segshrink.files import writing
from segshrink.losses import WeightedTerm
from segshrink.report import report as write_report
from segshrink.run_folder import RunFolder
from segshrink.run_records import EvaluationRecord
from segshrink.teachers import Teacher
from segshrink.training.checkpoints import check_checkpoint
from segshrink.training.evaluate_run import evaluate_run, profile_runs
from segshrink.training.hardware import use_free_threads
from segshrink.training.run import Role, RunResult
from segshrink.training.run import train as train_network
from segshrink.workflows.progress import Progress, silent


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    Attributes:
        folder: Its run folder.
        mean_iou: On the validation split, whole scenes, 0 to 1.
        report: The page.
    """

    folder: Path
    mean_iou: float
    report: Path


def train(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    control: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> TrainResult:
    """Train the recipe's teacher, or its student without a teacher, on the labels; measure and report it.

    Args:
        recipe: The recipe, or its file.
        out: Run folder to write.
        control: Train the student instead of the teacher.
        resume: Go on with an interrupted run in ``out``.
        progress: Told how far each stage has come.

    Raises:
        ConfigError: The recipe lacks what is to be trained.
        FileError: ``out`` holds another run or what this program didn't write.
        TrainingError: The loss became NaN or infinite.
    """
    out, recipe = Path(out), as_recipe(recipe)
    dataset = open_dataset(recipe.data)
    role: Role = "control" if control else "teacher"
    train_role(recipe, out=out, role=role, dataset=dataset, resume=resume, progress=progress)
    measure_run(out, dataset, progress=progress)
    time_runs([out], progress=progress)
    return TrainResult(out, RunFolder(out).evaluation().scores.mean_iou, write_report([out]))


def train_role(
    recipe: Recipe,
    *,
    out: Path,
    role: Role,
    dataset: Dataset,
    teacher: Callable[[], Teacher] | None = None,
    terms: Sequence[WeightedTerm] | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> RunResult:
    """Train one role of a recipe on its data set; with ``resume`` a finished run is left as it is."""
    quieten_lightning()
    if resume:
        check_checkpoint(RunFolder(out).last_checkpoint)
    with writing(out):
        return train_network(
            recipe,
            out=out,
            role=role,
            teacher=teacher,
            dataset=dataset,
            terms=terms,
            resume=resume,
            progress=partial(progress, f"train {role}"),
        )


def measure_run(
    run: Path, dataset: Dataset, *, reference: Path | None = None, progress: Progress = silent
) -> EvaluationRecord | None:
    """Evaluate a finished run on its data set; None where that was done before."""
    folder = RunFolder(run)
    if folder.has_evaluation:
        return None
    use_free_threads()
    with writing(run):
        return evaluate_run(
            run, dataset, reference=reference, progress=partial(progress, f"evaluate {folder.run().role}")
        )


def time_runs(
    runs: Sequence[Path], *, teacher: Callable[[], Teacher] | None = None, progress: Progress = silent
) -> None:
    """Measure finished runs, and the teacher whose folder stands in the first of them, in turns.

    Args:
        runs: Their folders, the student's first.
        teacher: Opens the teacher; None: there is none.
        progress: Told how far it has come.
    """
    described = runs[0] / "teacher" if teacher else None
    with writing(runs[0]):
        profile_runs(runs, teacher=teacher, described=described, progress=partial(progress, "measure speed"))


def quieten_lightning() -> None:
    """Silence what Lightning logs about hardware and its tips."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
