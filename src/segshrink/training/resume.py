"""Whether a training may begin in a folder, or go on with what it holds."""

from __future__ import annotations

from pathlib import Path

from segshrink.config import Crops, Recipe, Training
from segshrink.errors import ConfigError
from segshrink.machine import LARGEST_THREADS
from segshrink.run_folder import RunFolder
from segshrink.run_records import Role, RunRecord
from segshrink.teachers import Teacher
from segshrink.training.checkpoints import mend_checkpoint

# What says where a training runs: it may go on elsewhere, with other processes that load images, and other trackers.
_PLACE = ("devices", "nodes", "strategy")


def prepare_folder(
    folder: RunFolder, recipe: Recipe, role: Role, teacher: Teacher | None, *, resume: bool
) -> RunRecord | None:
    """Create a run folder, or return the record of the run that it already holds, which goes on by this recipe.

    Raises:
        ConfigError: It holds a run of another recipe or role, or one that learned from another teacher.
        FileError: It holds a run and ``resume`` isn't given, or what this program didn't write.
        TrainingError: Its checkpoint is damaged, and so is that of the epoch before.
    """
    folder.refuse_foreign()
    if not folder.has_run:
        folder.write_recipe(recipe)
        return None
    if not resume:
        folder.refuse_begun()
    record = folder.run()
    if _anywhere(folder.recipe()) != _anywhere(recipe) or record.role != role:
        raise ConfigError(f"{folder.path} holds a run of another recipe ({folder.config_file}); choose another folder")
    if teacher is not None:
        check_same_teacher(folder.path, teacher)
    if record.status != "finished":
        mend_checkpoint(folder)
        if recipe != folder.recipe():
            folder.write_recipe(recipe)
    return record


def check_same_teacher(run: Path, teacher: Teacher) -> None:
    """Refuse to go on with a run that learned from another teacher.

    Raises:
        ConfigError: It did.
    """
    folder = RunFolder(run)
    if not folder.has_run:
        return
    record = folder.run()
    if record.teacher_identity in (None, teacher.identity):
        return
    same = record.teacher == teacher.name
    other = "whose weights or settings have changed since" if same else f"not from {teacher.name}"
    raise ConfigError(f"the run in {run} learns from {record.teacher}, {other}; choose another folder")


def threads_of(record: RunRecord | None) -> int | None:
    """Return the threads that a run began with; other numbers of them add up to other weights."""
    threads = record.machine.threads if record else None
    return threads if threads and 0 < threads <= LARGEST_THREADS else None


def _anywhere(recipe: Recipe) -> Recipe:
    """Return a recipe that says nothing about the devices of its trainings, their loading processes and trackers."""
    default = {name: getattr(Training(), name) for name in _PLACE}
    changes = {
        role: learner.model_copy(update={"training": learner.training.model_copy(update=default)})
        for role in ("teacher", "student")
        if (learner := getattr(recipe, role)) is not None
    }
    crops = recipe.crops.model_copy(update={"workers": Crops().workers})
    return recipe.model_copy(update={**changes, "crops": crops, "trackers": []})
