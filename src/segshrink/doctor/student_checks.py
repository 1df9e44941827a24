"""What has become of a student: collapsed to few classes, better than its control, worse than its teacher."""

from __future__ import annotations

import numpy as np

from segshrink.classes import ClassMap
from segshrink.config import Recipe
from segshrink.doctor.findings import Finding
from segshrink.doctor.measuring import Matrices, gain, mean_iou
from segshrink.doctor.remedies import recipe_line

# Share of the predictions below which a class counts as never predicted, and of the labels from which it should be.
_NEVER, _PRESENT = 1e-3, 5e-3
# Share of the predictions that one class may have where the labels give it less.
_ALMOST_ALL, _NOT_ALL = 0.98, 0.9
_RARE_CLASS_SHARE = 0.5
_BETTER_TEACHER = "train the teacher longer, or choose a better one: segshrink train RECIPE"
# How far the score on a few crops may lie from that of an evaluation.
_EVALUATED_MARGIN = 0.05


def collapse_finding(matrices: Matrices, classes: ClassMap, recipe: Recipe) -> Finding:
    """Return whether a student predicts only some of the classes that the labels hold.

    Args:
        matrices: The student's confusion matrices (n, C, C).
        classes: The classes.
        recipe: The recipe whose lines mend it.
    """
    counts = matrices.sum(axis=0)
    truth, predicted = (counts.sum(axis=axis) / max(counts.sum(), 1) for axis in (1, 0))
    present = np.flatnonzero(truth >= _PRESENT)
    missing = [int(index) for index in present if predicted[index] < _NEVER]
    top = int(predicted.argmax())
    names = [classes.names[index] for index in missing]
    score = f"the student scores {mean_iou(matrices):.2f} mIoU"
    told = f"{score}; {predicted[top]:.0%} of its predictions are {classes.names[top]} ({truth[top]:.0%} of the labels)"
    numbers = {
        "mean_iou": mean_iou(matrices),
        "predicted": dict(zip(classes.names, predicted.tolist(), strict=True)),
        "labelled": dict(zip(classes.names, truth.tolist(), strict=True)),
        "never_predicted": names,
    }
    collapsed = predicted[top] > _ALMOST_ALL and truth[top] < _NOT_ALL
    if not missing and not collapsed:
        return Finding("student", "fine", "student", score, numbers=numbers)
    found = told if not missing else f"{told}; never predicted: {', '.join(names)}"
    return Finding(
        "collapsed",
        "fault" if collapsed or 2 * len(missing) >= len(present) else "warning",
        "student",
        found,
        "It has given up the rarer classes: a loss that is a mean over pixels hardly notices them.",
        _more_of_the_rare(recipe),
        numbers,
    )


def comparison_finding(teacher: Matrices, control: Matrices | None, *, evaluated: float) -> Finding:
    """Return whether the teacher is better than the control, which learned without it.

    Args:
        teacher: The teacher's confusion matrices (n, C, C).
        control: The control's on the same crops; None where only its evaluation is there.
        evaluated: mIoU of the control's evaluation.
    """
    score = mean_iou(teacher)
    if control is not None:
        other = mean_iou(control)
        _, surely_worse = gain(teacher, control)
        _, surely_better = gain(control, teacher)
    else:
        other = evaluated
        surely_worse, surely_better = other - score - _EVALUATED_MARGIN, score - other - _EVALUATED_MARGIN
    seen = f"the teacher scores {score:.2f} mIoU and the control, which learned without it, {other:.2f}"
    numbers = {"teacher_mean_iou": score, "control_mean_iou": other}
    if surely_better > 0:
        return Finding("control", "fine", "teacher", seen, numbers=numbers)
    return Finding(
        "control",
        "fault" if surely_worse > 0 else "warning",
        "teacher",
        seen if surely_worse > 0 else f"{seen}: no clear difference",
        "A teacher that knows no more than the student finds out by itself has little to teach.",
        _BETTER_TEACHER,
        numbers,
    )


def outgrown_findings(teacher: Matrices, student: Matrices) -> list[Finding]:
    """Return whether a student is surely better than its teacher, on the same crops.

    Args:
        teacher: The teacher's confusion matrices (n, C, C).
        student: The student's.
    """
    _, surely_better = gain(teacher, student)
    if surely_better <= 0:
        return []
    seen = f"the teacher scores {mean_iou(teacher):.2f} mIoU and its student {mean_iou(student):.2f}"
    why = "The student has learned it from the labels; the teacher may hold it back."
    numbers = {"teacher_mean_iou": mean_iou(teacher), "student_mean_iou": mean_iou(student)}
    return [Finding("outgrown", "warning", "teacher", seen, why, _BETTER_TEACHER, numbers)]


def _more_of_the_rare(recipe: Recipe) -> str:
    if recipe.crops.rare_class_share < _RARE_CLASS_SHARE:
        return recipe_line("crops.rare_class_share", _RARE_CLASS_SHARE)
    return recipe_line("student.terms", [{"name": "cross_entropy"}, {"name": "jaccard"}])
