"""Input variants: other pixel scalings, band orders, sizes and batch statistics, and a teacher's scores with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from segshrink.classes import IGNORE_INDEX
from segshrink.data import cut
from segshrink.doctor.sample import Matrices, Sample, confusions, predictions
from segshrink.losses.shapes import resized
from segshrink.model_description import Normalization
from segshrink.teachers import Teacher

# What batch normalization uses: the batch's own statistics in every layer, or only in the first one that runs; or the
# running ones.
Statistics = Literal["batch", "first", "running"]

# Pixels that a teacher answers about at once: eight crops of 256 pixels a side.
_PIXELS_AT_ONCE = 8 * 256 * 256
_CROPS_AT_ONCE = 8
_SHIFT_CROPS = 6
# What a fitted scaling begins with: deviations of so many powers of four around the images' own.
_POWERS = range(-7, 8)
_FITTED = "a fitted mean and deviation"
_SIZES = (0.5, 0.75, 1.0, 1.5, 2.0)
# Kinds of causes: an input variant's fields, and the order of classes. Of those that explain a teacher equally well the
# first is named.
KINDS = ("scaling", "order", "statistics", "size", "surroundings", "shift", "classes")
# What noise in the answers can pass for: averaging over more pixels, or other crops, lessens it.
_HELPED_BY_LESS_NOISE = {"statistics", "size", "surroundings", "shift"}


@dataclass(frozen=True)
class Scaling:
    """``x -> (x - mean) / std``, band by band, under a name.

    Attributes:
        name: What a reader calls it, behind "with".
        mean: One value a band.
        std: One value a band, not 0.
        fitted: Whether its numbers were searched for, so that they are no more than near what is right.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fitted: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Scale (N, bands, H, W) of any type, in float32."""
        mean, std = (
            torch.tensor(values, device=images.device).reshape(1, -1, 1, 1) for values in (self.mean, self.std)
        )
        return (images.float() - mean) / std

    def then(self, other: Scaling) -> Scaling:
        """Return this scaling followed by another, as one."""
        bands = list(zip(self.mean, self.std, other.mean, other.std, strict=True))
        return replace(
            self,
            mean=tuple(mean + other_mean * std for mean, std, other_mean, _ in bands),
            std=tuple(std * other_std for _, std, _, other_std in bands),
        )

    def reversed(self) -> Scaling:
        """Return it with the first and the third band's numbers exchanged."""
        mean, std = self.mean, self.std
        return replace(self, mean=(*mean[2::-1], *mean[3:]), std=(*std[2::-1], *std[3:]))

    def inverse(self) -> Scaling:
        """Return the scaling that undoes this one."""
        mean = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return replace(self, mean=mean, std=tuple(1 / std for std in self.std))

    def stretched(self, factor: float) -> Scaling:
        """Return it with a deviation that is ``factor`` times as large."""
        return replace(self, std=tuple(std * factor for std in self.std))

    def like(self, other: Scaling) -> bool:
        """Whether both do the same, to within what a network could notice."""
        pairs = [*zip(self.mean, other.mean, strict=True), *zip(self.std, other.std, strict=True)]
        return all(abs(one - two) <= 1e-3 * max(abs(one), abs(two), 1e-6) for one, two in pairs)


@dataclass(frozen=True)
class InputVariant:
    """One way to use a teacher; the fields' defaults leave everything as it is.

    Attributes:
        scaling: Done to the raw pixel values before the teacher gets them.
        order: "bgr": exchange the first and the third band, after scaling.
        statistics: What batch normalization uses; None: what it does by itself.
        size: Enlarge the images by this factor, and the answer back.
        surroundings: Show what a tile of deployment shows around each crop.
        shift: Move the answer by so many rows down and columns to the right.
    """

    scaling: Scaling | None = None
    order: Literal["rgb", "bgr"] = "rgb"
    statistics: Statistics | None = None
    size: float = 1.0
    surroundings: bool = False
    shift: tuple[int, int] = (0, 0)

    @property
    def fitted(self) -> bool:
        """Whether its scaling was searched for."""
        return self.scaling is not None and self.scaling.fitted

    def kinds(self, base: InputVariant) -> tuple[str, ...]:
        """Return the kinds of causes by which it differs from ``base``."""
        return tuple(kind for kind in KINDS if kind != "classes" and getattr(self, kind) != getattr(base, kind))

    def combined(self, other: InputVariant, base: InputVariant) -> list[InputVariant]:
        """Return the variants with the changes of both to ``base``; none where both change the same.

        With exchanged bands the numbers of a scaling may belong to the colors or to the places of the bands, so that
        there are two.
        """
        if set(self.kinds(base)) & set(other.kinds(base)):
            return []
        both = replace(self, **{kind: getattr(other, kind) for kind in other.kinds(base)})
        if both.scaling is None or both.order == "rgb" or both.scaling.like(both.scaling.reversed()):
            return [both]
        return [both, replace(both, scaling=both.scaling.reversed())]


class VariantScores:
    """Confusion matrices of a teacher under input variants; no crop is asked about twice under the same variant.

    Pixels of classes that the teacher doesn't know don't count.

    Args:
        teacher: The teacher.
        sample: The crops.
    """

    def __init__(self, teacher: Teacher, sample: Sample) -> None:
        self.teacher, self.sample = teacher, sample
        self.targets = known_targets(teacher, sample.targets)
        self._matrices: dict[InputVariant, Matrices] = {}

    def remember(self, variant: InputVariant, matrices: Matrices) -> None:
        """Take in the matrices (n, C, C) of the first crops, which were measured elsewhere."""
        self._matrices[variant] = matrices

    def of(self, variant: InputVariant, crops: int | None = None) -> Matrices:
        """Return the confusion matrix of each of the first crops, (crops, C, C); None: of all.

        Raises:
            RuntimeError: The teacher can't take such images; so do ``ValueError`` and ``SegshrinkError``.
        """
        crops, classes = len(self.sample) if crops is None else crops, len(self.teacher.classes)
        matrices = self._matrices.get(variant, np.zeros((0, classes, classes), np.int64))
        missing = range(len(matrices), crops)
        for group, logits in outputs(self.teacher, self.sample, variant, missing):
            counted = confusions(predictions(logits), self.targets[list(group)], classes)
            matrices = np.concatenate([matrices, counted])
        self._matrices[variant] = matrices
        return matrices[:crops]


def single_variants(
    scores: VariantScores, predicted: Tensor, *, base: InputVariant, inner: Scaling, steady: bool = True
) -> list[InputVariant]:
    """Return all variants that differ from ``base`` in one respect and apply to this teacher and these crops.

    Args:
        scores: The teacher and the crops.
        predicted: The classes (n, H, W) that it names now.
        base: How it is used now.
        inner: What it is known to do to pixels.
        steady: Whether it answers alike each time; else what only lessens the noise is left out.
    """
    teacher, sample = scores.teacher, scores.sample
    if teacher.whole_scenes:
        return []
    scalings = likely_scalings(sample.statistics, holds_bytes=sample.holds_bytes, inner=inner)
    variants = [replace(base, scaling=scaling) for scaling in scalings]
    if sample.images.shape[1] >= 3:
        variants.append(replace(base, order="bgr"))
    if layers := _batch_norms(teacher.module):
        trained = any(layer.training for layer in layers)
        variants.append(replace(base, statistics="running" if trained else "batch"))
    variants += [replace(base, size=size) for size in _SIZES if size != base.size]
    if sample.has_surroundings:
        variants.append(replace(base, surroundings=True))
    if any(shift := _likely_shift(predicted, scores.targets, len(teacher.classes))):
        variants.append(replace(base, shift=shift))
    return [variant for variant in variants if steady or not set(variant.kinds(base)) & _HELPED_BY_LESS_NOISE]


def known_targets(teacher: Teacher, targets: Tensor) -> Tensor:
    """Return labels with 255 for classes that the teacher doesn't know."""
    known = torch.zeros(256, dtype=torch.bool)
    known[list(teacher.known)] = True
    return torch.where(known[targets], targets, IGNORE_INDEX)


@torch.no_grad()
def outputs(
    teacher: Teacher, sample: Sample, variant: InputVariant, indices: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield groups of crops and the teacher's logits (n, C, size, size) of them under an input variant."""
    if teacher.whole_scenes:
        for index in indices:
            yield [index], _scene_output(teacher, sample, index)
        return
    with _batch_statistics(teacher.module, variant.statistics):
        if variant.surroundings:
            for index in indices:
                window, (rows, cols) = sample.surroundings(index)
                yield [index], _output(teacher, window, variant)[:, :, rows, cols]
            return
        pixels = (sample.size * max(variant.size, 1.0)) ** 2
        step = int(min(max(_PIXELS_AT_ONCE // pixels, 1), _CROPS_AT_ONCE))
        for start in range(0, len(indices), step):
            group = list(indices[start : start + step])
            yield group, _output(teacher, sample.images[group], variant)


def _output(teacher: Teacher, images: Tensor, variant: InputVariant) -> Tensor:
    size = (images.shape[2], images.shape[3])
    if variant.scaling is not None:
        images = variant.scaling(images)
    if variant.order == "bgr":
        images = torch.cat([images[:, :3].flip(1), images[:, 3:]], dim=1)
    if variant.size != 1:
        zoomed = (max(1, round(size[0] * variant.size)), max(1, round(size[1] * variant.size)))
        images = F.interpolate(
            images.float(), size=zoomed, mode="bilinear", align_corners=False, antialias=variant.size < 1
        )
    logits = resized(teacher.logits(images).cpu(), size)
    return logits.roll(variant.shift, dims=(2, 3)) if any(variant.shift) else logits


def _scene_output(teacher: Teacher, sample: Sample, index: int) -> Tensor:
    plan = sample.plans[index]
    logits = teacher.scene_logits(np.asarray(sample.store.image(plan.sample)), sample.store.samples[plan.sample].name)
    return torch.from_numpy(cut(logits.transpose(1, 2, 0), plan)).permute(2, 0, 1)[None]


def _likely_shift(predicted: Tensor, targets: Tensor, classes: int) -> tuple[int, int]:
    """Return by how many rows and columns answers fit the labels best: the peak of their correlation over some crops.

    Args:
        predicted: Class indices (n, size, size).
        targets: Class indices (n, size, size), 255 where they don't count.
        classes: Number of classes.
    """
    size = predicted.shape[-1]
    total = torch.zeros(size, size)
    for index in range(classes):
        truth, answer = ((maps[:_SHIFT_CROPS] == index).float() for maps in (targets, predicted))
        spectra = [torch.fft.rfft2(maps - maps.mean(dim=(1, 2), keepdim=True)) for maps in (truth, answer)]
        total += torch.fft.irfft2((spectra[0] * spectra[1].conj()).sum(0), s=total.shape)
    row, col = (place - size if place > size // 2 else place for place in divmod(int(total.argmax()), size))
    return (row, col) if max(abs(row), abs(col)) <= size // 4 else (0, 0)


def _batch_norms(module: nn.Module | None) -> list[_BatchNorm]:
    """Return the batch normalizations of a network that keep running statistics."""
    layers = [] if module is None else module.modules()
    return [layer for layer in layers if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


@contextmanager
def _batch_statistics(module: nn.Module | None, statistics: Statistics | None) -> Iterator[None]:
    """Make every batch normalization of ``module`` use these statistics; None: those that its mode says.

    Running statistics are used, but never changed.
    """
    layers = _batch_norms(module)
    modes = [(layer.training, layer.track_running_stats) for layer in layers]
    first: list[nn.Module] = []

    def choose(layer: nn.Module, _: object) -> None:
        first.append(layer)
        if statistics is not None:
            layer.training = statistics == "batch" or (statistics == "first" and layer is first[0])

    hooks = [layer.register_forward_pre_hook(choose) for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, hook, (training, tracking) in zip(layers, hooks, modes, strict=True):
            hook.remove()
            layer.training, layer.track_running_stats = training, tracking


def unchanged(bands: int) -> Scaling:
    """Return the scaling that leaves raw pixel values as they are."""
    return _uniform("raw pixels", 0.0, 1.0, bands)


def likely_scalings(statistics: Normalization, *, holds_bytes: bool, inner: Scaling) -> list[Scaling]:
    """Return what could be done to raw pixels so that a network inside a teacher gets the scaling it was trained with.

    Args:
        statistics: Mean and deviation of the images' bands.
        holds_bytes: Whether pixels are 0 to 255; else they are taken as 16-bit numbers.
        inner: What the teacher is known to do to the pixels that it is given.
    """
    bands = statistics.bands
    common = [*_common_scalings(bands, holds_bytes=holds_bytes)]
    common.append(Scaling("these images' own mean and deviation", statistics.mean, statistics.std))
    undone = inner.inverse()
    # What is written down may be in other units than the pixels.
    other_units = [
        replace(inner.stretched(factor).then(undone), name=f"a deviation {words}")
        for factor, words in ((255.0, "255 times as large"), (1 / 255, "255 times smaller"))
    ]
    # Somewhere inside it may scale already what was scaled before.
    twice = [replace(scaling.inverse(), name=f"{scaling.name} undone (it scales twice)") for scaling in common[:-1]]
    different = [unchanged(bands)]
    for scaling in (
        *common,
        replace(undone, name="raw pixels"),
        _uniform("pixels 255 times as large", 0.0, 1 / 255, bands),
        *other_units,
        *(scaling.then(undone) for scaling in common),
        *twice,
    ):
        if not any(scaling.like(other) for other in different):
            different.append(scaling)
    return different[1:]


def _common_scalings(bands: int, *, holds_bytes: bool) -> list[Scaling]:
    """Return what networks are commonly trained with, or are by mistake, besides raw pixel values."""
    if not holds_bytes:
        tops = (10000.0, 65535.0, 4095.0, 255.0)
        return [_uniform(f"pixels from 0 to 1 (x / {top:.0f})", 0.0, top, bands) for top in tops]
    normalization = Normalization.named("imagenet", bands)
    imagenet = Scaling("ImageNet's mean and deviation", normalization.mean, normalization.std)
    return [
        _uniform("pixels from 0 to 1 (x / 255)", 0.0, 255.0, bands),
        _uniform("pixels from -1 to 1 (x / 127.5 - 1)", 127.5, 127.5, bands),
        imagenet,
        Scaling("ImageNet's mean taken off raw pixels", imagenet.mean, (1.0,) * bands),
        replace(imagenet.stretched(255.0), name="ImageNet's mean and deviation, then divided by 255"),
        Scaling(
            "ImageNet's mean and deviation of pixels from 0 to 1 on pixels from 0 to 255",
            tuple(mean / 255 for mean in imagenet.mean),
            tuple(std / 255 for std in imagenet.std),
        ),
    ]


def fit_grids(statistics: Normalization, inner: Scaling) -> list[list[Scaling]]:
    """Return scalings of all magnitudes for a fit to begin with: those about zero, those about the images' mean.

    Args:
        statistics: Mean and deviation of the images' bands.
        inner: What the teacher is known to do to the pixels that it is given.
    """
    bands = statistics.bands
    deviations = [sum(statistics.std) / bands * 4.0**power for power in _POWERS]
    return [
        [Scaling(_FITTED, mean, (std,) * bands, fitted=True).then(inner.inverse()) for std in deviations]
        for mean in ((0.0,) * bands, statistics.mean)
    ]


def fit_neighbors(scaling: Scaling | None, statistics: Normalization, factor: float) -> list[Scaling]:
    """Return the scalings near one: its deviation larger and smaller, its mean higher and lower by ``factor``."""
    fitted = replace(scaling or unchanged(statistics.bands), name=_FITTED, fitted=True)
    shifts = [
        tuple(mean + sign * (factor - 1) * std for mean, std in zip(fitted.mean, statistics.std, strict=True))
        for sign in (1, -1)
    ]
    return [fitted.stretched(factor), fitted.stretched(1 / factor), *(replace(fitted, mean=mean) for mean in shifts)]


def _uniform(name: str, mean: float, std: float, bands: int) -> Scaling:
    """Return a scaling with the same numbers for all bands."""
    return Scaling(name, (mean,) * bands, (std,) * bands)
