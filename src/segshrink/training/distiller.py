"""Knowledge distillation as a Lightning module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segshrink.config import Training
from segshrink.errors import ConfigError, ModelError
from segshrink.losses import WeightedTerm, terms_from
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher, TorchTeacher
from segshrink.training.task import Batch, SegmentationTask

# Key of a batch under which a TeacherCache's logits (N, C, H, W) travel with the images.
CACHED = "teacher"


class Distiller(SegmentationTask):
    """Trains a student on the true labels and on a frozen teacher's soft targets.

    By default ``alpha * cross_entropy + (1 - alpha) * pixel_kl(temperature)`` after Hinton et al., Distilling the
    Knowledge in a Neural Network, 2015, with the T² factor on, as a mean over pixels. The teacher sees the same
    raw pixels as the student; each normalises inside itself.

    Args:
        student: The model to train.
        teacher: The frozen model; a plain ``SegmentationModel`` is wrapped.
        terms: Weighted losses that replace ``alpha`` and ``temperature``.
        alpha: Share of the true-label loss, in [0, 1]; 1 - alpha is the share of the distillation loss.
        temperature: Softens both distributions, > 0.
        training: Optimiser settings.
        seed: Random numbers inside the student derive from (seed, step).

    Raises:
        ModelError: Student and teacher have different numbers of classes.
        ConfigError: ``alpha`` or ``temperature`` is out of range.
    """

    def __init__(
        self,
        student: SegmentationModel,
        teacher: Teacher | SegmentationModel,
        terms: Sequence[WeightedTerm] | None = None,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        training: Training | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], found {alpha}")
        if temperature <= 0:
            raise ConfigError(f"temperature must be positive, found {temperature}")
        if terms is None:
            terms = terms_from(alpha=alpha, temperature=temperature)
        super().__init__(student, terms, training=training, seed=seed)
        self.teacher = teacher if isinstance(teacher, Teacher) else TorchTeacher(teacher)

    def setup(self, stage: str) -> None:
        """Put the teacher where the student is."""
        self.teacher.to(self.device)

    def teacher_logits(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits (N, C, H, W): the batch's own, cut from a cache, or computed.

        None when no term asks for them.

        Raises:
            ModelError: The teacher has another number of classes than the student.
        """
        if not any(term.needs_teacher for _, term in self.terms):
            return None
        logits: Tensor = batch[CACHED] if CACHED in batch else self.teacher.logits(batch["image"])
        if logits.shape[1] != self.model.num_classes:
            raise ModelError(
                f"the teacher gives {logits.shape[1]} classes but the student {self.model.num_classes}; "
                "open it with open_teacher, which matches classes by name"
            )
        return logits
