"""What a teacher answers, looked at: numbers that aren't numbers, probabilities, certainty, score, chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segshrink.doctor.measuring import Matrices, confusions, level, majority_iou, mean_iou
from segshrink.doctor.sample import Sample
from segshrink.doctor.input_variants import Progress, Trial, answers, known_targets
from segshrink.teachers import Teacher

# Temperatures at which the certainty is measured; the recipe's is added.
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
CERTAIN = 0.99
# Change of an answer, relative to the logits' deviation, beyond what rounding explains.
LEAST_CHANGE = 0.02
# Every so many rows and columns a pixel's certainty is measured.
_EVERY = 4
_NEVER = -1e4
# Crops that are asked about twice, together and alone.
_TWICE = 2


@dataclass(frozen=True)
class Answered:
    """What a teacher answered about a sample.

    Attributes:
        matrices: Confusion matrix (n, C, C) of each crop, over the classes that the teacher knows.
        not_finite: Share of the logits of known classes that are NaN or plus infinity.
        variation: How much the logits of one crop differ from another's, at most, relative to their size.
        lowest: Smallest logit of a known class.
        highest: Largest logit of a known class.
        sums_to_one: Whether every pixel's logits sum to one, as those of a softmax do.
        entropy: Mean entropy of the teacher's probabilities as a share of the largest possible one.
        certain: Temperature -> share of the pixels where one class has a probability above 0.99.
        highest_probability: Mean probability of the likeliest class.
    """

    matrices: Matrices
    not_finite: float
    variation: float
    lowest: float
    highest: float
    sums_to_one: bool
    entropy: float
    certain: dict[float, float]
    highest_probability: float

    @property
    def mean_iou(self) -> float:
        """MIoU over the classes that the crops hold."""
        return mean_iou(self.matrices)

    @property
    def probabilities(self) -> bool:
        """Whether all logits lie in [0, 1], as a softmax's do, or those of a sigmoid for each class."""
        return 0 <= self.lowest <= self.highest <= 1

    @property
    def judged(self) -> bool:
        """Whether any pixel counted."""
        return bool(self.matrices.any())

    @property
    def majority(self) -> float:
        """MIoU of naming the most frequent class everywhere."""
        return majority_iou(self.matrices)

    @property
    def level(self) -> float:
        """Share of the way from the most frequent class everywhere (0) to perfect (1)."""
        return level(self.mean_iou, self.majority)


def listen(
    teacher: Teacher,
    sample: Sample,
    trial: Trial,
    *,
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> Answered:
    """Run a teacher over all crops and look at its answers.

    Args:
        teacher: The teacher.
        sample: The crops.
        trial: How it is used.
        temperature: The recipe's.
        progress: Called with (crops done, crops in all, what is being done).
    """
    targets = known_targets(teacher, sample.targets)
    known = list(teacher.known)
    seen = _Seen(sorted({temperature, *TEMPERATURES}))
    matrices: list[Matrices] = []  # one a crop
    for group, logits in answers(teacher, sample, trial, range(len(sample))):
        matrices += list(confusions(logits, targets[list(group)]))
        seen.add(logits[:, known], sample.inside[list(group)])
        if progress is not None:
            progress(len(matrices), len(sample), "listening to the teacher")
    return seen.summary(np.stack(matrices))


def unsteadiness(teacher: Teacher, sample: Sample, trial: Trial) -> dict[str, float]:
    """Return how much an answer changes when it is asked for again ("random"), and when its crop comes alone ("batch").

    Both as the largest change of a logit relative to the logits' standard deviation; 0 for teachers that answer about
    whole scenes.
    """
    indices = list(range(min(_TWICE, len(sample))))
    if teacher.whole_scenes or trial.surroundings or len(indices) < 2:
        return {"random": 0.0, "batch": 0.0}
    first, again = (_stacked(teacher, sample, trial, indices) for _ in range(2))
    alone = _stacked(teacher, sample, trial, indices[:1])
    size = max(float(first.std()), float(first.abs().mean()) * 1e-3, 1e-12)
    changes = (float((one - two).abs().max()) / size for one, two in ((first, again), (first[:1], alone)))
    random, batch = (0.0 if np.isnan(change) else change for change in changes)
    return {"random": random, "batch": batch}


def _stacked(teacher: Teacher, sample: Sample, trial: Trial, indices: Sequence[int]) -> Tensor:
    """Return the logits of known classes (n, K, H, W) of these crops."""
    found = torch.cat([logits for _, logits in answers(teacher, sample, trial, indices)])
    return found[:, list(teacher.known)].clamp_min(_NEVER)


class _Seen:
    """Statistics of logits, gathered group by group."""

    def __init__(self, temperatures: Sequence[float]) -> None:
        self._certain = dict.fromkeys(temperatures, 0.0)
        self._entropy = self._highest_probability = 0.0
        self._pixels = self._values = self._broken = self._classes = 0
        self._first: Tensor | None = None
        self._difference = self._size = 0.0
        self._low, self._high = float("inf"), -float("inf")
        self._sums_to_one = True

    def add(self, logits: Tensor, inside: Tensor) -> None:
        """Count the logits (n, K, H, W) of known classes where ``inside`` (n, H, W)."""
        few = logits[:, :, ::_EVERY, ::_EVERY].double()
        self._compare(few.nan_to_num(0.0).clamp(_NEVER, -_NEVER))
        values = few.movedim(1, -1)[inside[:, ::_EVERY, ::_EVERY]]
        # Minus infinity is how a teacher says "never".
        broken = values.isnan() | (values == torch.inf)
        self._values += values.numel()
        self._broken += int(broken.sum())
        values = values[~broken.any(dim=1)].clamp_min(_NEVER)
        if not len(values):
            return
        self._pixels += len(values)
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._sums_to_one &= bool(((values.sum(dim=1) - 1).abs() < 1e-2).all())
        probabilities = values.softmax(dim=1)
        self._entropy += float(torch.special.entr(probabilities).sum())
        self._highest_probability += float(probabilities.amax(dim=1).sum())
        for temperature in self._certain:
            highest = (values / temperature).softmax(dim=1).amax(dim=1)
            self._certain[temperature] += float((highest > CERTAIN).sum())

    def _compare(self, logits: Tensor) -> None:
        """See how much (n, K, h, w) logits differ from the first crop's."""
        self._classes = logits.shape[1]
        self._first = logits[0] if self._first is None else self._first
        self._difference = max(self._difference, float((logits - self._first).abs().mean(dim=(1, 2, 3)).max()))
        self._size = max(self._size, float(logits.abs().mean()))

    def summary(self, matrices: Matrices) -> Answered:
        """Return what was seen."""
        pixels = max(self._pixels, 1)
        return Answered(
            matrices=matrices,
            not_finite=self._broken / max(self._values, 1),
            variation=self._difference / max(self._size, 1e-12),
            lowest=self._low,
            highest=self._high,
            sums_to_one=self._sums_to_one and self._pixels > 0,
            entropy=self._entropy / pixels / math.log(max(self._classes, 2)),
            certain={temperature: share / pixels for temperature, share in self._certain.items()},
            highest_probability=self._highest_probability / pixels,
        )
