"""Checks of a student: collapsed to few classes, its teacher against its control, the balance of its terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segshrink.classes import ClassMap
from segshrink.config import ModelChoice, Recipe
from segshrink.data import Dataset
from segshrink.doctor.findings import Finding, RecipeTerms, recipe_line
from segshrink.doctor.gradients import balance_findings, gradient_norms
from segshrink.doctor.input_variants import InputVariant, VariantScores
from segshrink.doctor.sample import Matrices, Sample, gain, mean_iou
from segshrink.models import SegmentationModel
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, open_teacher
from segshrink.teachers.torch_teacher import for_crops
from segshrink.training.build_student import build_chosen
from segshrink.training.terms import student_terms

# Share of the predictions below which a class counts as never predicted, and of the labels from which it should be.
_NEVER, _PRESENT = 1e-3, 5e-3
# Share of the predictions that one class may have where the labels give it less.
_ALMOST_ALL, _NOT_ALL = 0.98, 0.9
_RARE_CLASS_SHARE = 0.5
# How far the score on a few crops may lie from that of an evaluation.
_EVALUATED_MARGIN = 0.05
# Batches of a gradient's mean, steps of a new student before it, and crops of a batch, also of the only one in brief.
_BATCHES, _FIRST_STEPS, _LARGEST_BATCH, _BRIEF_BATCH = 3, 6, 8, 4
_BETTER_TEACHER = "train the teacher longer, or choose a better one: segshrink train RECIPE"


def open_student(
    source: str | Path | None, recipe: Recipe, dataset: Dataset, sample: Sample
) -> SegmentationModel | None:
    """Open a trained student, or build an untrained one; None where nothing says which.

    Args:
        source: Run or model folder, or a network id; None: the recipe's student.
        recipe: The recipe.
        dataset: The data set.
        sample: Crops, for the statistics that an untrained student normalizes with.

    Raises:
        FileError: The folder or its files are missing.
        ModelError: The folder is damaged, has other classes than the data set, or the id is unknown.
    """
    if source is None and recipe.student is None:
        return None
    choice = recipe.student.model if source is None and recipe.student else ModelChoice(id=str(source))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build_chosen(choice, dataset, lambda: sample.statistics)
    return model if sample.store.resize is None else model.with_resize(None)


def student_findings(
    student: SegmentationModel,
    folder: RunFolder | None,
    teacher: Teacher,
    matrices: Matrices,
    sample: Sample,
    recipe: Recipe,
    *,
    brief: bool = False,
) -> list[Finding]:
    """Look at a student: what it predicts, whether its teacher can teach it, how hard each term pulls at it.

    Args:
        student: The student.
        folder: Where it was trained; None: it wasn't.
        teacher: Its teacher.
        matrices: The teacher's confusion matrices (n, C, C) of the sample.
        sample: The crops.
        recipe: The recipe.
        brief: Measure the terms on one small batch.
    """
    findings = []
    if folder is not None:
        predicted = _matrices(folder.path, teacher, sample)
        findings.append(_collapse_finding(predicted, teacher.classes, recipe))
        findings += _comparison_findings(folder.control, predicted, teacher, matrices, sample)
    recipe_terms = RecipeTerms.of(recipe)
    terms = student_terms(recipe_terms.distillation, recipe_terms.supervised)
    steps = 0 if folder else _FIRST_STEPS
    norms = gradient_norms(
        student,
        teacher,
        terms,
        sample,
        batch_size=min(recipe.crops.batch_size, len(sample), _BRIEF_BATCH if brief else _LARGEST_BATCH),
        batches=1 if brief else _BATCHES,
        steps=steps,
        training=recipe.student.training if recipe.student else None,
        seed=recipe.seed,
    )
    state = f"a new student after {steps} steps" if steps else "the trained student"
    return [*findings, *balance_findings(norms, terms, recipe_terms, state=state)]


def _collapse_finding(matrices: Matrices, classes: ClassMap, recipe: Recipe) -> Finding:
    """Return whether a student predicts only some of the classes that the labels hold.

    Args:
        matrices: The student's confusion matrices (n, C, C).
        classes: The classes.
        recipe: The recipe whose lines fix it.
    """
    counts = matrices.sum(axis=0)
    truth, predicted = (counts.sum(axis=axis) / max(counts.sum(), 1) for axis in (1, 0))
    present = np.flatnonzero(truth >= _PRESENT)
    missing = [classes.names[index] for index in present if predicted[index] < _NEVER]
    top = int(predicted.argmax())
    score = f"the student scores {mean_iou(matrices):.2f} mIoU"
    numbers = {
        "mean_iou": mean_iou(matrices),
        "predicted": dict(zip(classes.names, predicted.tolist(), strict=True)),
        "labeled": dict(zip(classes.names, truth.tolist(), strict=True)),
        "never_predicted": missing,
    }
    collapsed = predicted[top] > _ALMOST_ALL and truth[top] < _NOT_ALL
    if not missing and not collapsed:
        return Finding("student", "fine", "student", score, numbers=numbers)
    shares = f"{predicted[top]:.0%} of its predictions are {classes.names[top]} ({truth[top]:.0%} of the labels)"
    never = f"; never predicted: {', '.join(missing)}" if missing else ""
    fix = recipe_line("crops.rare_class_share", _RARE_CLASS_SHARE)
    if recipe.crops.rare_class_share >= _RARE_CLASS_SHARE:
        fix = recipe_line("student.terms", [{"name": "cross_entropy"}, {"name": "jaccard"}])
    return Finding(
        "collapsed",
        "fault" if collapsed or 2 * len(missing) >= len(present) else "warning",
        "student",
        f"{score}; {shares}{never}",
        "It has given up the rarer classes: a loss that is a mean over pixels hardly notices them.",
        fix,
        numbers,
    )


def _comparison_findings(
    control_run: RunFolder, predicted: Matrices, teacher: Teacher, matrices: Matrices, sample: Sample
) -> list[Finding]:
    """Compare the teacher with the control, or, where none was evaluated, with the student itself."""
    score = mean_iou(matrices)
    if not control_run.has_evaluation:
        predicted = _counted(predicted, teacher)
        if gain(matrices, predicted)[1] <= 0:
            return []
        message = f"the teacher scores {score:.2f} mIoU and its student {mean_iou(predicted):.2f}"
        why = "The student has learned it from the labels; the teacher may hold it back."
        numbers = {"teacher_mean_iou": score, "student_mean_iou": mean_iou(predicted)}
        return [Finding("outgrown", "warning", "teacher", message, why, _BETTER_TEACHER, numbers)]
    if control_run.model.is_dir():
        control = _counted(_matrices(control_run.path, teacher, sample), teacher)
        other, surely_better, surely_worse = mean_iou(control), gain(control, matrices)[1], gain(matrices, control)[1]
    else:
        other = control_run.evaluation().scores.mean_iou
        surely_better, surely_worse = score - other - _EVALUATED_MARGIN, other - score - _EVALUATED_MARGIN
    message = f"the teacher scores {score:.2f} mIoU and the control, which learned without it, {other:.2f}"
    numbers = {"teacher_mean_iou": score, "control_mean_iou": other}
    if surely_better > 0:
        return [Finding("control", "fine", "teacher", message, numbers=numbers)]
    return [
        Finding(
            "control",
            "fault" if surely_worse > 0 else "warning",
            "teacher",
            message if surely_worse > 0 else f"{message}: no clear difference",
            "A teacher that knows no more than the student finds out by itself has little to teach.",
            _BETTER_TEACHER,
            numbers,
        )
    ]


def _matrices(folder: Path, teacher: Teacher, sample: Sample) -> Matrices:
    """Return the confusion matrices (n, C, C) of a model in a folder, on the sample's crops."""
    model = open_teacher(folder, teacher.classes, bands=int(sample.images.shape[1]))
    if sample.store.resize is not None:
        model = for_crops(model, sample.store.resize)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return VariantScores(model, sample).of(InputVariant())


def _counted(matrices: Matrices, teacher: Teacher) -> Matrices:
    """Return matrices without the pixels of classes that the teacher doesn't know: they don't count for it either."""
    counted = matrices.copy()
    counted[:, [index for index in range(matrices.shape[1]) if index not in teacher.known]] = 0
    return counted
