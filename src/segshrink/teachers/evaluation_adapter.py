"""A teacher as what can be evaluated."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.prediction import Prediction
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.teachers.teacher import Teacher


class NamedScene(Protocol):
    """What a teacher is asked about: ``segshrink.data.Scene``."""

    @property
    def name(self) -> str:
        """The scene's name in its data set."""

    @property
    def image(self) -> NDArray[Any]:
        """(H, W, bands) raw pixel values."""


class TeacherPredictor:
    """Predicts scenes as a student is taught about them: whole, in the teacher's own way.

    Args:
        teacher: The teacher.

    Attributes:
        classes: The student's classes, in which it answers.
        parameters: How many the teacher has; None for a black box.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.classes: ClassMap = teacher.classes
        self.parameters: int | None = teacher.parameters

    def predict_scene(self, scene: NamedScene) -> Prediction:
        """Segment a scene into classes (H, W) and probabilities (C, H, W)."""
        logits = np.require(self.teacher.scene_logits(np.asarray(scene.image), scene.name), requirements=["C", "W"])
        index = most_likely(logits)
        softmax_in_place(logits)
        return Prediction(index=index, probabilities=logits)
