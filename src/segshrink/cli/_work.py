"""Trainings and measurements as verbs run them: under progress bars, skipping what is finished.

Imports torch; verbs import this inside their function.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from segshrink.cli._console import progress_bar
from segshrink.cli._errors import writing
from segshrink.config import Recipe
from segshrink.data import open_dataset
from segshrink.errors import ConfigError, ModelError, TrainingError
from segshrink.evaluation import Evaluation
from segshrink.files import read_json
from segshrink.models.weights import read_checkpoint
from segshrink.report import build_report
from segshrink.teachers import open_teacher
from segshrink.training import RunResult, describe_teacher, finish, train
from segshrink.training.hardware import free_threads
from segshrink.training.run import Role
from segshrink.training.terms import student_terms

_MEASURES = ("evaluation.json", "profile.json")


def train_run(recipe: Recipe, *, out: Path, role: Role, teacher: str | None = None, resume: bool = False) -> RunResult:
    """Train one role of a recipe under a progress bar; with ``resume`` a finished run is left as it is."""
    quieten_lightning()
    if resume:
        _check_checkpoint(out / "checkpoints" / "last.ckpt")
    dataset = open_dataset(recipe.data)
    opened = partial(open_teacher, teacher, dataset.classes, bands=dataset.bands) if teacher else None
    with progress_bar(f"train {role}") as advance, writing(out):
        return train(recipe, out=out, role=role, teacher=opened, teacher_name=teacher, resume=resume, progress=advance)


def measure_run(run: Path, *, reference: Path | None = None) -> Evaluation | None:
    """Evaluate and profile a finished run under a progress bar; None where that was done before."""
    if _measured(run):
        return None
    use_free_threads()
    with progress_bar(f"evaluate {read_json(run / 'run.json')['role']}") as advance, writing(run):
        return finish(run, reference=reference, progress=advance)


def measure_teacher(source: str, recipe: Recipe, *, out: Path) -> Evaluation | None:
    """Evaluate and profile a teacher under a progress bar; None where this very teacher was measured before."""
    if _measured(out) and _is_about(out, source):
        return None
    use_free_threads()
    with progress_bar("evaluate teacher") as advance, writing(out):
        return describe_teacher(source, recipe, out=out, progress=advance)


def distill_all(recipe: Recipe, *, teacher: str | None, out: Path, control: bool, resume: bool) -> Path:
    """Train what is missing of teacher, student and control, measure all, and return the report's path.

    Args:
        recipe: The recipe.
        teacher: Run or model folder; None trains the recipe's teacher into ``out/teacher-run``.
        out: The student's run folder; the control goes to ``out/control``, the teacher's measures to ``out/teacher``.
        control: Whether to train the control.
        resume: Go on with what an interrupted command left; what is finished is skipped.

    Raises:
        ConfigError: The recipe has no student, or the run in ``out`` learned from another teacher.
    """
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one, or give --student")
    student_terms(recipe.distillation, recipe.student.terms)  # wrong terms are refused before a teacher is trained
    if teacher is None:
        own = out / "teacher-run"
        train_run(recipe, out=own, role="teacher", resume=resume)
        teacher = str(own)
    if resume:
        _check_teacher(out, teacher)
    measure_teacher(teacher, recipe, out=out / "teacher")
    train_run(recipe, out=out, role="student", teacher=teacher, resume=resume)
    measure_run(out, reference=out / "teacher")
    if control:
        train_run(recipe, out=out / "control", role="control", resume=resume)
        measure_run(out / "control", reference=out / "teacher")
    return build_report([out])


def use_free_threads() -> None:
    """Let torch use the cores that are free, and no more than it was allowed."""
    torch.set_num_threads(min(torch.get_num_threads(), free_threads()))


def quieten_lightning() -> None:
    """Silence what Lightning logs about hardware and its tips."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _measured(folder: Path) -> bool:
    return all((folder / name).exists() for name in _MEASURES)


def _is_about(folder: Path, source: str) -> bool:
    """Whether a folder's measures are those of the teacher at ``source``."""
    run = Path(source) / "run.json"
    written = read_json(folder / "run.json")
    expected = {**read_json(run), "role": "teacher"} if run.exists() else {**written, "name": source}
    return bool(written == expected)


def _check_teacher(out: Path, teacher: str) -> None:
    if not (out / "run.json").exists():
        return
    before = read_json(out / "run.json").get("teacher")
    if before is not None and Path(before).resolve() != Path(teacher).resolve():
        raise ConfigError(f"the run in {out} learns from {before}, not from {teacher}; choose another folder")


def _check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint to go on from that is damaged or could run code, before anything else is done."""
    if not path.exists():
        return
    try:
        read_checkpoint(path)
    except ModelError as error:
        raise TrainingError(f"can't go on from {error}; or delete it to begin this training again") from error
