"""Distilling within a given time: how many steps fit, with the schedule's shape and everything around them."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from segshrink.config import Learner, Recipe
from segshrink.data import Dataset
from segshrink.errors import ConfigError, UsageError
from segshrink.formatting import duration
from segshrink.losses import WeightedTerm
from segshrink.teachers import Teacher
from segshrink.training.pace import Pace, measure_pace

_LOGGER = logging.getLogger(__name__)
_UNITS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)")
# What follows the last training doesn't grow with it: speed and memory, the page for browsers, the report.
_AFTER = 90.0
# Share of the time that is planned: steps and validations aren't all alike.
_PLANNED = 0.95
# A student takes so many times its teacher's steps: what pays is the student's patience, and its steps cost less.
_STUDENT_STEPS = 2.0
# Validations take this share of a training at most; there are fewer of them where they'd take more.
_VALIDATING = 0.25
# Fewer steps teach a network little, whatever it starts from.
_FEW = 100
# A forward pass takes about this share of a training step.
_FORWARD = 1 / 3


def seconds_of(text: str | float) -> float:
    """Read a time: seconds, or a text such as "2h", "90m" or "1h 30m".

    Raises:
        UsageError: It is no time, or none at all.

    Example:
        >>> seconds_of("1h30m")
        5400.0
    """
    whole = str(text).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", whole):
        whole += "s"
    if not re.fullmatch(rf"(?:{_PART.pattern}\s*)+", whole) or not math.isfinite(float(_total(whole))):
        raise UsageError(f"a time is written as 2h, 90m or 1h30m, found {text!r}")
    if (seconds := _total(whole)) <= 0:
        raise UsageError(f"a time must be more than nothing, found {text!r}")
    return seconds


def _total(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


@dataclass
class TimeLimit:
    """What is left of the time of a distillation.

    Attributes:
        seconds: The time in all.
        runs: Trainings of the student: itself and, where wanted, its control.
    """

    seconds: float
    runs: int

    def __post_init__(self) -> None:
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that may still be planned."""
        return self.seconds - (time.monotonic() - self._began) - _AFTER - (1 - _PLANNED) * self.seconds

    def for_teacher(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """Return a recipe whose own teacher leaves the students their part of the time.

        Raises:
            ConfigError: The time is too short.
        """
        teacher, student = recipe.teacher, recipe.student
        if teacher is None or student is None:
            return recipe
        pace = measure_pace(recipe, role="teacher", dataset=dataset)
        other = measure_pace(recipe, role="control", dataset=dataset)
        members = len(teacher.models)
        taught = _STUDENT_STEPS * student.training.epochs * other.step
        weights = members * teacher.training.epochs * pace.step, self.runs * taught
        scenes = (len(dataset.train) + len(dataset.unlabeled) + len(dataset.val)) / max(1, len(dataset.val))
        answers = (scenes + 1) * pace.validation
        share = (self.left - answers) * weights[0] / sum(weights) / members
        return fitted(recipe, "teacher", pace, share)

    def for_students(
        self,
        recipe: Recipe,
        dataset: Dataset,
        *,
        teacher: Callable[[], Teacher],
        terms: Sequence[WeightedTerm],
    ) -> Recipe:
        """Return a recipe whose student, and control, end in time.

        Raises:
            ConfigError: The time is too short.
        """
        pace = measure_pace(recipe, role="student", dataset=dataset, teacher=teacher, terms=terms)
        return fitted(recipe, "student", pace, self.left / self.runs)


def fitted(recipe: Recipe, role: Literal["teacher", "student"], pace: Pace, seconds: float) -> Recipe:
    """Choose the crops of an epoch so that a training and its evaluation take so many seconds.

    Epochs stay what they are, and so does the shape of the schedule. There are fewer validations where they would take
    more than a quarter of the time, and fewer epochs where an epoch would have less than a step.

    Args:
        recipe: What is to be trained.
        role: Which of its networks.
        pace: What that takes.
        seconds: For the training, and the evaluation after it, which takes about two validations.

    Raises:
        ConfigError: Not even a step fits.
    """
    learner: Learner | None = getattr(recipe, role)
    if learner is None:
        raise ValueError(f"the recipe has no {role}")
    training, batch = learner.training, recipe.crops.batch_size
    room = seconds - 2 * pace.validation
    most = max(1, int(_VALIDATING * room / max(pace.validation, 1e-9))) if room > 0 else 1
    every = training.epochs if training.keep == "last" else max(training.validate_every, -(-training.epochs // most))
    steps = int((room - -(-training.epochs // every) * pace.validation) / pace.step)
    if steps < 1:
        least = 3 * pace.validation + pace.step - seconds
        raise ConfigError(
            f"the time is too short: a single step of the {role}, and what must follow it, take about "
            f"{duration(max(least, 1))} more; give more time"
        )
    epochs = min(training.epochs, steps)
    per_epoch = batch * (steps // epochs)
    _LOGGER.info(
        "%s: %d steps in %d epochs fit into %s, at %.3g s a step and %.3g s a validation",
        role,
        steps // epochs * epochs,
        epochs,
        duration(seconds),
        pace.step,
        pace.validation,
    )
    if steps < _FEW:
        _LOGGER.warning(
            "%s: %d steps teach little; %d would take %s more", role, steps, _FEW, duration((_FEW - steps) * pace.step)
        )
    changed = training.model_copy(update={"epochs": epochs, "validate_every": min(every, epochs)})
    return recipe.model_copy(
        update={
            "crops": recipe.crops.model_copy(update={"per_epoch": per_epoch}),
            role: learner.model_copy(update={"training": changed}),
        }
    )
