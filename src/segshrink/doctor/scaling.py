"""Pixel scalings: those that networks are commonly trained with, and those that a fit tries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segshrink.model_description import Normalization

# What a fit begins with: deviations of so many powers of four around the images' own.
_POWERS = range(-8, 9)
# By how much it then changes mean and deviation, coarse to fine.
FIT_FACTORS = (2.0, 1.4, 1.2)


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

    def undone(self) -> Scaling:
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


def unchanged(bands: int) -> Scaling:
    """Return the scaling that leaves raw pixel values as they are."""
    return Scaling("raw pixels", (0.0,) * bands, (1.0,) * bands)


def common_scalings(statistics: Normalization, *, bytes_: bool) -> list[Scaling]:
    """Return what networks are commonly trained with, or are by mistake, besides raw pixel values.

    Args:
        statistics: Mean and deviation of the images' bands.
        bytes_: Whether pixels are 0 to 255; else they are taken as 16-bit numbers.
    """
    bands = statistics.bands

    def same(name: str, mean: float, std: float) -> Scaling:
        return Scaling(name, (mean,) * bands, (std,) * bands)

    own = Scaling("these images' own mean and deviation", statistics.mean, statistics.std)
    if not bytes_:
        tops = (10000.0, 65535.0, 4095.0, 255.0)
        return [same(f"pixels from 0 to 1 (x / {top:.0f})", 0.0, top) for top in tops] + [own]
    named = Normalization.named("imagenet", bands)
    imagenet = Scaling("ImageNet's mean and deviation", named.mean, named.std)
    return [
        same("pixels from 0 to 1 (x / 255)", 0.0, 255.0),
        same("pixels from -1 to 1 (x / 127.5 - 1)", 127.5, 127.5),
        imagenet,
        Scaling("ImageNet's mean taken off raw pixels", imagenet.mean, (1.0,) * bands),
        replace(imagenet.stretched(255.0), name="ImageNet's mean and deviation, then divided by 255"),
        Scaling(
            "ImageNet's mean and deviation of pixels from 0 to 1 on pixels from 0 to 255",
            tuple(mean / 255 for mean in named.mean),
            tuple(std / 255 for std in named.std),
        ),
        own,
    ]


def candidates(statistics: Normalization, *, bytes_: bool, inner: Scaling | None) -> list[Scaling]:
    """Return what could be done to raw pixels so that a network inside a teacher gets the scaling it was trained with.

    Args:
        statistics: Mean and deviation of the images' bands.
        bytes_: Whether pixels are 0 to 255.
        inner: What the teacher is known to do to the pixels that it is given; None: unknown.
    """
    bands = statistics.bands
    wanted = common_scalings(statistics, bytes_=bytes_)
    tried = list(wanted)
    if inner is not None:
        undone = inner.undone()
        tried.append(replace(undone, name="raw pixels"))
        # What is written down may be in other units than the pixels.
        tried += [
            replace(inner.stretched(factor).then(undone), name=f"a deviation {words}")
            for factor, words in ((255.0, "255 times as large"), (1 / 255, "255 times smaller"))
        ]
        tried += [one.then(undone) for one in wanted]
    tried.append(Scaling("pixels 255 times as large", (0.0,) * bands, (1 / 255,) * bands))
    # Somewhere inside it may scale already what was scaled before.
    tried += [replace(one.undone(), name=f"{one.name} undone (it scales twice)") for one in wanted[:-1]]
    return _different(tried, bands)


def fit_grids(statistics: Normalization, inner: Scaling | None) -> list[list[Scaling]]:
    """Return scalings of all magnitudes for a fit to begin with: those about zero, those about the images' mean.

    Args:
        statistics: Mean and deviation of the images' bands.
        inner: What the teacher is known to do to the pixels that it is given; None: unknown.
    """
    bands = statistics.bands
    deviation = sum(statistics.std) / bands
    undone = (inner or unchanged(bands)).undone()
    return [
        [
            Scaling("a fitted mean and deviation", mean, (deviation * 4.0**power,) * bands, fitted=True).then(undone)
            for power in _POWERS
        ]
        for mean in ((0.0,) * bands, statistics.mean)
    ]


def fit_steps(scaling: Scaling | None, statistics: Normalization, factor: float) -> list[Scaling]:
    """Return the scalings near one: its deviation larger and smaller, its mean higher and lower by ``factor``."""
    fitted = replace(scaling or unchanged(statistics.bands), name="a fitted mean and deviation", fitted=True)
    shifts = [
        tuple(mean + sign * (factor - 1) * std for mean, std in zip(fitted.mean, statistics.std, strict=True))
        for sign in (1, -1)
    ]
    return [fitted.stretched(factor), fitted.stretched(1 / factor), *(replace(fitted, mean=mean) for mean in shifts)]


def _different(scalings: Iterable[Scaling], bands: int) -> list[Scaling]:
    """Return scalings without those that change nothing or do what an earlier one does."""
    different: list[Scaling] = []
    for one in scalings:
        if not any(one.like(other) for other in [unchanged(bands), *different]):
            different.append(one)
    return different
