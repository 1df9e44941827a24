"""The student of an examination: a trained one with its control, or one as it stands before its training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from segshrink.config import Recipe
from segshrink.data import Dataset
from segshrink.doctor.findings import Finding
from segshrink.doctor.gradients import balance_findings, gradient_norms
from segshrink.doctor.measuring import Matrices
from segshrink.doctor.plan import Plan
from segshrink.doctor.sample import Sample
from segshrink.doctor.student_checks import collapse_finding, comparison_finding, outgrown_findings
from segshrink.doctor.input_variants import Trial, measure
from segshrink.errors import ModelError
from segshrink.models import SegmentationModel, load_model
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, open_teacher
from segshrink.training.build_student import build_chosen
from segshrink.training.terms import student_terms

_BATCHES = 3
_FIRST_STEPS = 6
_LARGEST_BATCH = 8


@dataclass(frozen=True)
class Student:
    """A student and what lies beside it.

    Attributes:
        model: The network.
        folder: Where it was trained; None: it wasn't.
    """

    model: SegmentationModel
    folder: Path | None

    @property
    def control(self) -> Path | None:
        """The run of its control, if that was evaluated."""
        control = None if self.folder is None else RunFolder(self.folder).control
        return control.path if control is not None and control.has_evaluation else None


def open_student(source: str | None, recipe: Recipe, dataset: Dataset, sample: Sample) -> Student | None:
    """Open a trained student, or build an untrained one; None where nothing says which.

    Args:
        source: Run or model folder, or a network id; None: the recipe's student.
        recipe: The recipe.
        dataset: The data set.
        sample: Crops, for the statistics that an untrained student normalises with.

    Raises:
        FileError: The folder or its files are missing.
        ModelError: The folder is damaged, or the id unknown.
    """
    if source is not None:
        model = load_model(source, classes=dataset.classes, bands=dataset.bands)
        if model.description.classes.names != dataset.classes.names:
            raise ModelError(
                f"the student in {source} has its classes in the order {', '.join(model.description.classes.names)}, "
                f"the data set in the order {', '.join(dataset.classes.names)}; give a student of this data set"
            )
        return Student(model, Path(source) if Path(source).is_dir() else None)
    if recipe.student is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_chosen(recipe.student.model, dataset, lambda: sample.statistics)
    return Student(model, None)


def examine_student(
    student: Student, teacher: Teacher, heard: Matrices, sample: Sample, recipe: Recipe, plan: Plan, *, brief: bool
) -> list[Finding]:
    """Look at a student: what it predicts, whether its teacher can teach it, what pulls at it.

    Args:
        student: The student.
        teacher: Its teacher.
        heard: The teacher's confusion matrices (n, C, C) of the sample.
        sample: The crops.
        recipe: The recipe.
        plan: What it learns from.
        brief: Measure the terms on one small batch.
    """
    found = []
    if student.folder is not None:
        predicted = _measured(student.folder, teacher, sample)
        found.append(collapse_finding(predicted, teacher.classes, recipe))
        found += _compared(student, predicted, teacher, heard, sample)
    terms = student_terms(plan.distillation, plan.supervised)
    steps = 0 if student.folder else _FIRST_STEPS
    norms = gradient_norms(
        student.model,
        teacher,
        terms,
        sample,
        batch_size=min(recipe.crops.batch_size, len(sample), 4 if brief else _LARGEST_BATCH),
        batches=1 if brief else _BATCHES,
        steps=steps,
        training=recipe.student.training if recipe.student else None,
        seed=recipe.seed,
    )
    state = f"a new student after {steps} steps" if steps else "the trained student"
    return [*found, *balance_findings(norms, terms, plan, state=state)]


def _measured(folder: Path, teacher: Teacher, sample: Sample) -> Matrices:
    """Return the confusion matrices (n, C, C) of a model in a folder, on the sample's crops."""
    model = open_teacher(str(folder), teacher.classes, bands=int(sample.images.shape[1]))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return measure(model, sample, Trial(), range(len(sample)))


def _compared(
    student: Student, predicted: Matrices, teacher: Teacher, heard: Matrices, sample: Sample
) -> list[Finding]:
    """Compare the teacher with the control, or, where there is none, with the student itself."""
    if student.control is None:
        return outgrown_findings(heard, _counted(predicted, teacher))
    control = None
    if (student.control / "model").is_dir():
        control = _counted(_measured(student.control, teacher, sample), teacher)
    score = RunFolder(student.control).evaluation().scores.mean_iou
    return [comparison_finding(heard, control, evaluated=score)]


def _counted(matrices: Matrices, teacher: Teacher) -> Matrices:
    """Return matrices without the pixels of classes that the teacher doesn't know: they don't count for it either."""
    counted = matrices.copy()
    counted[:, [index for index in range(matrices.shape[1]) if index not in teacher.known]] = 0
    return counted
