"""Treatments of a teacher: what its pixels could be meant to look like, and what it then answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.data import cut
from segshrink.doctor.batch_norm import Statistics, batch_norms, forced, kept
from segshrink.doctor.measuring import Matrices, confusions
from segshrink.doctor.sample import Sample
from segshrink.doctor.scaling import Scaling, candidates
from segshrink.losses.shapes import resized
from segshrink.teachers import Teacher

# Called with (done, of how many, what is being done).
Progress = Callable[[int, int, str], None]

# Pixels that a teacher answers about at once: eight crops of 256 pixels a side.
_PIXELS_AT_ONCE = 8 * 256 * 256
_CROPS_AT_ONCE = 8
_SHIFT_CROPS = 6
_ZOOMS = (0.5, 0.75, 1.0, 1.5, 2.0)
# The order decides between causes that explain a teacher equally well.
FAMILIES = ("scaling", "order", "statistics", "size", "surroundings", "shift", "classes")
# What noise in the answers can pass for: averaging over more pixels, or other crops, lessens it.
_SHAKEN = ("statistics", "size", "surroundings", "shift")
# Field of a trial that each changes.
_FIELDS = {
    "scaling": "scaling",
    "order": "reverse",
    "statistics": "statistics",
    "size": "zoom",
    "surroundings": "surroundings",
    "shift": "shift",
}


@dataclass(frozen=True)
class Trial:
    """One treatment; the fields' defaults leave everything as it is.

    Attributes:
        scaling: Done to the raw pixel values before the teacher gets them.
        reverse: Exchange the first and the third band, after scaling.
        statistics: What batch normalisation uses: the batch's statistics or the running ones; None: what it does.
        zoom: Enlarge the images by this factor, and the answer back.
        surroundings: Show what a tile of deployment shows around each crop.
        shift: Move the answer by so many rows down and columns to the right.
    """

    scaling: Scaling | None = None
    reverse: bool = False
    statistics: Statistics | None = None
    zoom: float = 1.0
    surroundings: bool = False
    shift: tuple[int, int] = (0, 0)

    @property
    def fitted(self) -> bool:
        """Whether its scaling was searched for."""
        return self.scaling is not None and self.scaling.fitted

    def families(self, base: Trial) -> tuple[str, ...]:
        """Return the kinds of treatment by which it differs from ``base``."""
        return tuple(family for family, name in _FIELDS.items() if getattr(self, name) != getattr(base, name))


def single_trials(
    teacher: Teacher, sample: Sample, *, base: Trial, inner: Scaling | None, steady: bool = True
) -> list[Trial]:
    """Return all treatments that differ from ``base`` in one respect and apply to this teacher and these crops.

    Args:
        teacher: The teacher.
        sample: The crops.
        base: How it is used now.
        inner: What it is known to do to pixels; None: unknown.
        steady: Whether it answers alike each time; else what only lessens the noise is left out.
    """
    if teacher.whole_scenes:
        return []
    trials = [
        replace(base, scaling=scaling)
        for scaling in candidates(sample.statistics, bytes_=sample.holds_bytes, inner=inner)
    ]
    if sample.images.shape[1] >= 3:
        trials.append(replace(base, reverse=not base.reverse))
    if layers := batch_norms(teacher.module):
        trials.append(replace(base, statistics="running" if any(layer.training for layer in layers) else "batch"))
    trials += [replace(base, zoom=zoom) for zoom in _ZOOMS if zoom != base.zoom]
    if sample.has_surroundings:
        trials.append(replace(base, surroundings=True))
    if (shift := likely_shift(teacher, sample, base)) != base.shift:
        trials.append(replace(base, shift=shift))
    return [trial for trial in trials if steady or not set(trial.families(base)) & set(_SHAKEN)]


def likely_shift(teacher: Teacher, sample: Sample, base: Trial) -> tuple[int, int]:
    """Return by how many rows and columns a teacher's answers fit the labels best: the peak of their correlation."""
    indices = range(min(len(sample), _SHIFT_CROPS))
    targets = known_targets(teacher, sample.targets)[: len(indices)]
    classes = len(teacher.classes)
    predicted = torch.cat(
        [logits.nan_to_num(-torch.inf).argmax(1) for _, logits in answers(teacher, sample, base, indices)]
    )
    total = torch.zeros(sample.size, sample.size)
    for index in range(classes):
        truth, answer = ((maps == index).float() for maps in (targets, predicted))
        spectra = [torch.fft.rfft2(maps - maps.mean(dim=(1, 2), keepdim=True)) for maps in (truth, answer)]
        total += torch.fft.irfft2((spectra[0] * spectra[1].conj()).sum(0), s=total.shape)
    row, col = divmod(int(total.argmax()), sample.size)
    shift = tuple(place - sample.size if place > sample.size // 2 else place for place in (row, col))
    inside = max(map(abs, shift)) <= sample.size // 4
    return (shift[0], shift[1]) if inside else base.shift


def combinations(one: Trial, two: Trial, *, base: Trial) -> list[Trial]:
    """Return the trials with the changes of both; none where both change the same.

    With exchanged bands the numbers of a scaling may belong to the colours or to the places of the bands, so that
    there are two.
    """
    if set(one.families(base)) & set(two.families(base)):
        return []
    both = replace(one, **{_FIELDS[family]: getattr(two, _FIELDS[family]) for family in two.families(base)})
    if both.scaling is None or both.reverse == base.reverse or both.scaling.like(both.scaling.reversed()):
        return [both]
    return [both, replace(both, scaling=both.scaling.reversed())]


def measure(teacher: Teacher, sample: Sample, trial: Trial, indices: Sequence[int]) -> Matrices:
    """Return the confusion matrix (n, C, C) of each of these crops under a treatment.

    Pixels of classes that the teacher doesn't know don't count.
    """
    targets = known_targets(teacher, sample.targets)
    found = [confusions(logits, targets[list(group)]) for group, logits in answers(teacher, sample, trial, indices)]
    return np.concatenate(found)


def known_targets(teacher: Teacher, targets: Tensor) -> Tensor:
    """Return labels with 255 for classes that the teacher doesn't know."""
    known = torch.zeros(256, dtype=torch.bool)
    known[list(teacher.known)] = True
    return torch.where(known[targets], targets, IGNORE_INDEX)


@torch.no_grad()
def answers(
    teacher: Teacher, sample: Sample, trial: Trial, indices: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield groups of crops and the teacher's logits (n, C, size, size) of them under a treatment."""
    if teacher.whole_scenes:
        for index in indices:
            yield [index], _scene_answer(teacher, sample, index)
        return
    with kept(teacher.module), forced(teacher.module, trial.statistics):
        if trial.surroundings:
            for index in indices:
                window, (rows, cols) = sample.surroundings(index)
                yield [index], _answer(teacher, window, trial)[:, :, rows, cols]
            return
        pixels = (sample.size * max(trial.zoom, 1.0)) ** 2
        step = int(min(max(_PIXELS_AT_ONCE // pixels, 1), _CROPS_AT_ONCE))
        for start in range(0, len(indices), step):
            group = list(indices[start : start + step])
            yield group, _answer(teacher, sample.images[group], trial)


def _answer(teacher: Teacher, images: Tensor, trial: Trial) -> Tensor:
    size = (images.shape[2], images.shape[3])
    if trial.scaling is not None:
        images = trial.scaling(images)
    if trial.reverse:
        images = torch.cat([images[:, :3].flip(1), images[:, 3:]], dim=1)
    if trial.zoom != 1:
        zoomed = (max(1, round(size[0] * trial.zoom)), max(1, round(size[1] * trial.zoom)))
        images = F.interpolate(
            images.float(), size=zoomed, mode="bilinear", align_corners=False, antialias=trial.zoom < 1
        )
    logits = resized(teacher.logits(images).cpu(), size)
    return logits.roll(trial.shift, dims=(2, 3)) if any(trial.shift) else logits


def _scene_answer(teacher: Teacher, sample: Sample, index: int) -> Tensor:
    plan = sample.plans[index]
    logits = teacher.scene_logits(np.asarray(sample.store.image(plan.sample)), sample.store.samples[plan.sample].name)
    return torch.from_numpy(cut(logits.transpose(1, 2, 0), plan)).permute(2, 0, 1)[None]
