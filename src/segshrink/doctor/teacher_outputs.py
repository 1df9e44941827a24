"""What a teacher answers about a sample, and how much that changes by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from segshrink.doctor.cause_search import Progress
from segshrink.doctor.input_variants import InputVariant, known_targets, outputs
from segshrink.doctor.sample import Matrices, Sample, confusions, predictions
from segshrink.teachers import Teacher

# A probability that says no more than a label.
CERTAIN = 0.99
# Difference between crops, relative to the logits' size, below which answers are the same everywhere.
_CONSTANT = 1e-4
# Every so many rows and columns a pixel's logits are looked at.
_EVERY = 4
_LOWEST = -1e4
# Crops that are asked about again, together and alone.
_AGAIN = 2


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher answered about a sample.

    Attributes:
        matrices: Confusion matrix (n, C, C) of each crop, over the classes that the teacher knows.
        predicted: Class indices (n, size, size), uint8.
        logits: Those of known classes (n, K, h, w) at every fourth row and column.
        inside: Bool (n, h, w), False outside the scene.
    """

    matrices: Matrices
    predicted: Tensor
    logits: Tensor
    inside: Tensor

    @cached_property
    def not_finite(self) -> float:
        """Share of the logits that are NaN or plus infinity; minus infinity is how a teacher says "never"."""
        return float(self._broken.sum()) / max(self._broken.numel(), 1)

    @cached_property
    def constant(self) -> bool:
        """Whether the answer is the same everywhere, whatever the image."""
        logits = self.logits.nan_to_num(0.0).clamp(_LOWEST, -_LOWEST)
        difference = (logits - logits[:1]).abs().mean(dim=(1, 2, 3)).max()
        return bool(difference < _CONSTANT * logits.abs().mean().clamp_min(1e-12))

    @cached_property
    def finite(self) -> Tensor:
        """The logits (m, K) of all pixels inside the scene without a broken one; float64."""
        return self._pixels[~self._broken.any(dim=1)].double().clamp_min(_LOWEST)

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest logit."""
        return (float(self.finite.min()), float(self.finite.max())) if len(self.finite) else (np.nan, np.nan)

    @property
    def probabilities(self) -> bool:
        """Whether all logits lie in [0, 1], as a softmax's do, or those of a sigmoid for each class."""
        return 0 <= self.extremes[0] <= self.extremes[1] <= 1

    @property
    def entropy(self) -> float:
        """Mean entropy of the teacher's probabilities as a share of the largest possible one."""
        entropy = torch.special.entr(self.finite.softmax(dim=1)).sum(dim=1).mean()
        return float(entropy / np.log(max(self.finite.shape[1], 2)))

    @property
    def highest_probability(self) -> float:
        """Mean probability of the likeliest class."""
        return float(self.finite.softmax(dim=1).amax(dim=1).mean())

    def certain(self, temperature: float) -> float:
        """Return the share of the pixels where one class has a probability above 0.99 at a temperature."""
        highest = (self.finite / temperature).softmax(dim=1).amax(dim=1)
        return float((highest > CERTAIN).double().mean())

    @cached_property
    def _pixels(self) -> Tensor:
        return self.logits.movedim(1, -1)[self.inside]

    @property
    def _broken(self) -> Tensor:
        return self._pixels.isnan() | (self._pixels == torch.inf)


def probe(
    teacher: Teacher, sample: Sample, variant: InputVariant, *, progress: Progress | None = None
) -> TeacherOutputs:
    """Run a teacher over all crops.

    Args:
        teacher: The teacher.
        sample: The crops.
        variant: How it is used.
        progress: Called with (crops done, crops in all, what is being done).
    """
    predicted, logits = [], []
    for group, answer in outputs(teacher, sample, variant, range(len(sample))):
        predicted.append(predictions(answer))
        logits.append(answer[:, list(teacher.known), ::_EVERY, ::_EVERY])
        if progress is not None:
            progress(group[-1] + 1, len(sample), "asking the teacher")
    classes = torch.cat(predicted)
    matrices = confusions(classes, known_targets(teacher, sample.targets), len(teacher.classes))
    return TeacherOutputs(matrices, classes, torch.cat(logits), sample.inside[:, ::_EVERY, ::_EVERY])


def output_noise(teacher: Teacher, sample: Sample, variant: InputVariant) -> dict[str, float]:
    """Return how much an answer changes when it is asked for again ("random"), and when its crop comes alone ("batch").

    Both as the largest change of a logit relative to the logits' standard deviation; 0 for teachers that answer about
    whole scenes.
    """
    indices = list(range(min(_AGAIN, len(sample))))
    if teacher.whole_scenes or variant.surroundings or len(indices) < 2:
        return {"random": 0.0, "batch": 0.0}

    def answer(indices: Sequence[int]) -> Tensor:
        logits = torch.cat([logits for _, logits in outputs(teacher, sample, variant, indices)])
        return logits[:, list(teacher.known)].clamp_min(_LOWEST)

    first, again, alone = answer(indices), answer(indices), answer(indices[:1])
    size = max(float(first.std()), float(first.abs().mean()) * 1e-3, 1e-12)
    changes = {"random": float((again - first).abs().max()), "batch": float((alone - first[:1]).abs().max())}
    return {name: 0.0 if np.isnan(change) else change / size for name, change in changes.items()}
