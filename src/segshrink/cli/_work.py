"""Trainings and measurements as verbs run them: under progress bars, skipping what is finished.

Imports torch; verbs import this inside their function.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from segshrink.cli._console import progress_bar
from segshrink.cli._doctor import examine_briefly
from segshrink.cli._errors import writing
from segshrink.cli._teaching import measure_teachers, opener
from segshrink.config import Recipe, TeacherSource, Teaching
from segshrink.data import open_dataset
from segshrink.errors import ConfigError
from segshrink.evaluation import Evaluation
from segshrink.files import claimed
from segshrink.report import build_report
from segshrink.training import RunResult, evaluate_run, profile_runs, train
from segshrink.training.build_student import check_chosen
from segshrink.training.checkpoints import check_checkpoint
from segshrink.training.features import check_own_taps
from segshrink.training.hardware import check_memory, free_threads, lightning_precision
from segshrink.training.run import Role, refuse_foreign_run, run_role
from segshrink.training.terms import student_terms


def train_run(
    recipe: Recipe, *, out: Path, role: Role, teaching: Teaching | None = None, resume: bool = False
) -> RunResult:
    """Train one role of a recipe under a progress bar; with ``resume`` a finished run is left as it is."""
    quieten_lightning()
    if resume:
        check_checkpoint(out / "checkpoints" / "last.ckpt")
    teacher = opener(teaching, open_dataset(recipe.data)) if teaching else None
    with progress_bar(f"train {role}") as advance, writing(out):
        return train(recipe, out=out, role=role, teacher=teacher, resume=resume, progress=advance)


def measure_run(run: Path, *, reference: Path | None = None) -> Evaluation | None:
    """Evaluate a finished run under a progress bar; None where that was done before."""
    if (run / "evaluation.json").exists():
        return None
    use_free_threads()
    with progress_bar(f"evaluate {run_role(run)}") as advance, writing(run):
        return evaluate_run(run, reference=reference, progress=advance)


def time_runs(runs: Sequence[Path], *, teaching: Teaching | None = None, recipe: Recipe | None = None) -> None:
    """Measure finished runs, and the teacher whose folder stands in the first of them, in turns under a progress bar.

    Args:
        runs: Their folders, the student's first.
        teaching: The teacher; None: there is none.
        recipe: The student's, with a teacher.
    """
    teacher = opener(teaching, open_dataset(recipe.data)) if teaching and recipe else None
    described = runs[0] / "teacher" if teacher else None
    with progress_bar("measure speed") as advance, writing(runs[0]):
        profile_runs(runs, teacher=teacher, described=described, progress=advance)


def distill_all(recipe: Recipe, *, out: Path, control: bool, resume: bool, doctor: bool = True) -> Path:
    """Train what is missing of teacher, student and control, measure all, and return the report's path.

    Args:
        recipe: The recipe; when it names no teacher, its own is trained into ``out/teacher-run``.
        out: The student's run folder; the control goes to ``out/control``, the teacher's measures to ``out/teacher``.
        control: Whether to train the control.
        resume: Go on with what an interrupted command left; what is finished is skipped.
        doctor: Look for what keeps the teacher from teaching before the student's training begins.

    Raises:
        ConfigError: The recipe has no student or a wrong one, or the run in ``out`` learned from another teacher.
        FileError: A file of the student's weights is missing; ``out`` is in use, or holds what this program didn't
            write.
    """
    with claimed(out):
        refuse_foreign_runs(out)
        return _distill_all(recipe, out=out, control=control, resume=resume, doctor=doctor)


def refuse_foreign_runs(out: Path) -> None:
    """Refuse a folder where a distillation would replace what this program didn't write."""
    for folder in (out, out / "teacher-run", out / "teacher", out / "control"):
        refuse_foreign_run(folder)


def _distill_all(recipe: Recipe, *, out: Path, control: bool, resume: bool, doctor: bool) -> Path:
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one, or give --student")
    # Wrong terms and networks are refused before a teacher is trained.
    dataset = open_dataset(recipe.data)
    check_chosen(recipe.student.model, dataset)
    lightning_precision(recipe.student.training.precision)
    check_memory(recipe.crops, bands=dataset.bands, classes=len(dataset.classes))
    terms = student_terms(recipe.distillation, recipe.student.terms)
    teaching: Teaching = recipe.distillation
    if not teaching.teachers:
        check_own_taps(recipe, terms)
        own = out / "teacher-run"
        train_run(recipe, out=own, role="teacher", resume=resume)
        teaching = teaching.model_copy(update={"teachers": [TeacherSource(source=str(own))]})
    use_free_threads()
    measure_teachers(teaching, recipe, out=out, resume=resume)
    if doctor and not (out / "run.json").exists():
        examine_briefly(recipe, teaching)
    train_run(recipe, out=out, role="student", teaching=teaching, resume=resume)
    measure_run(out, reference=out / "teacher")
    if control:
        train_run(recipe, out=out / "control", role="control", resume=resume)
        measure_run(out / "control", reference=out / "teacher")
    time_runs([out, *([out / "control"] if control else [])], teaching=teaching, recipe=recipe)
    return build_report([out])


def use_free_threads() -> None:
    """Let torch use the cores that are free, and no more than it was allowed."""
    torch.set_num_threads(min(torch.get_num_threads(), free_threads()))


def quieten_lightning() -> None:
    """Silence what Lightning logs about hardware and its tips."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
