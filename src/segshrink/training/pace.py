"""How long a training's steps and validations take on this machine, measured on a few of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from segshrink.config import Recipe
from segshrink.data import Dataset
from segshrink.files import scratch_folder
from segshrink.losses import WeightedTerm
from segshrink.teachers import Teacher
from segshrink.training.run import Role, train

# Batches that are measured; the first are left out, in which caches and torch warm up.
_STEPS, _WARM_UP = 10, 3


@dataclass(frozen=True)
class Pace:
    """What a training takes.

    Attributes:
        step: Seconds a batch of crops, with their loading.
        validation: Seconds a validation on whole scenes.
    """

    step: float
    validation: float


def measure_pace(
    recipe: Recipe,
    *,
    role: Role,
    dataset: Dataset,
    teacher: Teacher | Callable[[], Teacher] | None = None,
    terms: Sequence[WeightedTerm] | None = None,
) -> Pace:
    """Train a few steps of a role and validate once, in a folder that is removed.

    Images are decoded and a teacher's answers cached on the way, as in the training that follows.

    Args:
        recipe: What is to be trained.
        role: As in ``training.run.train``, as are the others.
        dataset: The recipe's data set.
        teacher: What the student learns from.
        terms: The role's terms.
    """
    learner = recipe.teacher if role == "teacher" else recipe.student
    if learner is None:
        raise ValueError(f"the recipe has no {role}")
    short = learner.model_copy(update={"training": learner.training.model_copy(update={"epochs": 1})})
    crops = recipe.crops.model_copy(update={"per_epoch": _STEPS * recipe.crops.batch_size})
    changes = {"crops": crops, "trackers": [], "teacher" if role == "teacher" else "student": short}
    recipe = recipe.model_copy(update=changes)
    clock = _Clock()
    with scratch_folder() as scratch:
        train(
            recipe,
            out=scratch / "run",
            role=role,
            teacher=teacher,
            dataset=dataset,
            terms=terms,
            callbacks=[clock],
        )
    steps = [after - before for before, after in zip(clock.steps, clock.steps[1:], strict=False)]
    return Pace(statistics.median(steps[_WARM_UP:]), clock.validation)


class _Clock(Callback):
    """Notes when steps end and how long the validation takes."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validation = 0.0
        self._began = 0.0

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Note the time."""
        self.steps.append(time.perf_counter())

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock."""
        self.validation = time.perf_counter() - self._began
