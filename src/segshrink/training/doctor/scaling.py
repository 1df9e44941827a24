"""Pixel scalings: those that networks are commonly trained with, and how two of them follow each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segshrink.models import Normalization


@dataclass(frozen=True)
class Scaling:
    """``x -> (x - mean) / std``, band by band, under a name.

    Attributes:
        name: What a reader calls it, behind "with".
        mean: One value a band.
        std: One value a band, not 0.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Scale (N, bands, H, W) of any type, in float32."""
        mean, std = (
            torch.tensor(values, device=images.device).reshape(1, -1, 1, 1) for values in (self.mean, self.std)
        )
        return (images.float() - mean) / std

    def then(self, other: Scaling) -> Scaling:
        """Return this scaling followed by another, as one."""
        bands = list(zip(self.mean, self.std, other.mean, other.std, strict=True))
        return Scaling(
            self.name,
            tuple(mean + other_mean * std for mean, std, other_mean, _ in bands),
            tuple(std * other_std for _, std, _, other_std in bands),
        )

    def reversed(self) -> Scaling:
        """Return it with the first and the third band's numbers exchanged."""
        mean, std = self.mean, self.std
        return Scaling(self.name, (*mean[2::-1], *mean[3:]), (*std[2::-1], *std[3:]))

    def undone(self) -> Scaling:
        """Return the scaling that undoes this one."""
        bands = list(zip(self.mean, self.std, strict=True))
        return Scaling(self.name, tuple(-mean / std for mean, std in bands), tuple(1 / std for std in self.std))

    def like(self, other: Scaling) -> bool:
        """Whether both do the same, to within what a network could notice."""
        pairs = [*zip(self.mean, other.mean, strict=True), *zip(self.std, other.std, strict=True)]
        return all(abs(one - two) <= 1e-3 * max(abs(one), abs(two), 1e-6) for one, two in pairs)


def unchanged(bands: int) -> Scaling:
    """Return the scaling that leaves raw pixel values as they are."""
    return Scaling("raw pixels", (0.0,) * bands, (1.0,) * bands)


def common_scalings(statistics: Normalization, *, bytes_: bool) -> list[Scaling]:
    """Return what networks are commonly trained with, besides raw pixel values.

    Args:
        statistics: Mean and deviation of the images' bands.
        bytes_: Whether pixels are 0 to 255; else they are taken as 16-bit numbers.
    """
    bands = statistics.bands
    own = Scaling("these images' own mean and deviation", statistics.mean, statistics.std)
    if not bytes_:
        ranges = (("pixels from 0 to 1 (x / 10000)", 10000.0), ("pixels from 0 to 1 (x / 65535)", 65535.0))
        return [*(Scaling(name, (0.0,) * bands, (top,) * bands) for name, top in ranges), own]
    imagenet = Normalization.named("imagenet", bands)
    return [
        Scaling("pixels from 0 to 1 (x / 255)", (0.0,) * bands, (255.0,) * bands),
        Scaling("pixels from -1 to 1 (x / 127.5 - 1)", (127.5,) * bands, (127.5,) * bands),
        Scaling("ImageNet's mean and deviation", imagenet.mean, imagenet.std),
        Scaling("ImageNet's mean taken off raw pixels", imagenet.mean, (1.0,) * bands),
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
        tried.append(Scaling("raw pixels", *_fields(undone)))
        tried += [Scaling(one.name, *_fields(one.then(undone))) for one in wanted]
    # Somewhere inside it may scale already what was scaled before.
    tried += [Scaling(f"{one.name} undone (it scales twice)", *_fields(one.undone())) for one in wanted[:-1]]
    different: list[Scaling] = []
    for one in tried:
        if not any(one.like(other) for other in [unchanged(bands), *different]):
            different.append(one)
    return different


def _fields(scaling: Scaling) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return scaling.mean, scaling.std
