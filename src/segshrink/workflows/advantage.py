"""Whether a teacher knows enough more than its student's control for the student to gain by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from segshrink.config import Recipe, absolute_recipe
from segshrink.data import Dataset
from segshrink.errors import TrainingError
from segshrink.report.summary import LEAST_LEAD
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher

# The lead that is needed where the student sees unlabeled images, too: docs/teaching.md.
LEAST_WITH_UNLABELED = 0.0

_LOGGER = logging.getLogger(__name__)


def check_advantage(
    recipe: Recipe, dataset: Dataset, *, out: Path, teacher: Callable[[], Teacher], force: bool
) -> None:
    """Refuse to train a student where its evaluated teacher hardly knows more than its evaluated control.

    The control is the one in ``out/control``. Where none was trained by this recipe's student section on its data, or
    the teacher doesn't know all classes, or the two were judged on different pixels, nothing is said.

    Args:
        recipe: What the student is trained by.
        dataset: Its data set.
        out: The student's run folder.
        teacher: Opens the teacher.
        force: Only log it.

    Raises:
        TrainingError: There is little to distil.
    """
    folder = RunFolder(out)
    if not _has_control(folder.control, recipe) or len(teacher().known) < len(dataset.classes):
        return
    judged, other = folder.teacher.evaluation(), folder.control.evaluation()
    if not judged.is_comparable(other):
        return
    taught, untaught = judged.scores.mean_iou, other.scores.mean_iou
    unlabeled = bool(dataset.unlabeled) and recipe.crops.unlabeled_share > 0
    advantage, least = 100 * (taught - untaught), LEAST_WITH_UNLABELED if unlabeled else LEAST_LEAD
    if advantage >= least:
        return
    message = (
        f"there is little to distil: the teacher scores {taught:.3f} mIoU on the validation images and the control, "
        f"which learned without it, {untaught:.3f}, a lead of {advantage:+.1f} points where at least {least:+.1f} are "
        f"needed {'with' if unlabeled else 'without'} unlabeled images"
    )
    if force:
        _LOGGER.warning("%s; going on as told", message)
        return
    fix = "bring a better teacher, such as a bank" + ("" if unlabeled else ", name unlabeled images in data.unlabeled")
    raise TrainingError(f"{message}; {fix}, or go on with --resume --force (resume=True, force=True)")


def _has_control(control: RunFolder, recipe: Recipe) -> bool:
    """Whether a folder holds the evaluated control of a recipe's student, whatever teaches that."""
    if not (control.has_run and control.has_evaluation and control.config_file.is_file()):
        return False
    trained, recipe = control.recipe(), absolute_recipe(recipe)
    return (trained.student, trained.data, trained.crops) == (recipe.student, recipe.data, recipe.crops)
