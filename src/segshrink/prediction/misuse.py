"""Whether a scene is like the images that a model learned from; if it isn't, what was done to it.

Features of the scene (``imagery.image_features``) are compared with their distribution over the training images. Faults
that leave plain traces in the numbers are asked for first. Each of the others is undone on the features: exchanged
bands are exchanged again, octaves of detail are moved back by the change of resolution, and what a fault spoils is left
open. The one whose undoing brings the scene much nearer to the training images is named (the squared Mahalanobis
distance, with a price for each feature that is left open). A scene that is far off whatever is undone shows another
kind of ground.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from segshrink.image_distribution import ImageDistribution
from segshrink.imagery.image_features import (
    OCTAVES,
    PER_OCTAVE,
    TRACES,
    ImageSample,
    feature_groups,
    image_features,
)
from segshrink.model_description import ModelDescription

# Part of each correlation that isn't believed: hardly more scenes than features tell it.
_SHRINKAGE = 0.3
# By how much undoing a fault must lower the squared distance: for each feature that it spoils, and for each squared
# deviation that is left.
_PRICE, _DOUBT = 1.2, 0.3
# Squared deviations for each feature up to which a mended scene is like the training images: fewer for exchanged bands
# and coarse scenes, as which other ground and photographs may pass, more for smooth ones, as which hardly anything
# passes; and beyond which it is unlike them.
_NEAR, _NEAR_EXCHANGED, _NEAR_COARSE, _NEAR_SMOOTH, _FAR = 1.75, 1.0, 1.1, 3.0, 2.2
# Least deviations between places, whatever those between some training images are; by the feature's name or its start.
_LEAST = {
    **{"mean": 0.035, "dark": 0.035, "middle": 0.035, "bright": 0.035, "spread": 0.07, "skew": 0.14},
    **{"warm_level": 0.01, "warm_dark": 0.01, "blue_level": 0.014, "warm_spread": 0.02, "blue_spread": 0.035},
    **{"warm_detail": 0.02, "blue_detail": 0.02, "warm_skew": 0.2, "warm_vivid": 0.14, "lit": 0.07, "warm": 0.07},
    **{"blue": 0.14, "opposite": 0.14, "energy": 0.02, "peaks": 0.05},
}
_LEAST_OTHERS = 0.1
# Where 0 and 1 are the darkest and the brightest pixel of the training images, no scene's brightest lies outside.
_DARKEST, _BRIGHTEST = 0.1, 2.5
# Below this a scene's brightest stands for 1 where 255 is meant.
_UNIT = 2 / 255
# Logarithms of how much more detail there is in an octave than in the next: less than these of the first two where an
# image was blurred by two pixels or more, whatever it shows.
_SMOOTH = -0.655, -0.53
# Bytes that may be missing by chance, times pixels.
_BYTES = 600
# Mean difference between the highest and the lowest band of a pixel below which there is no color.
_COLORLESS = 0.004

Features = NDArray[np.float64]
# Feature → place in the vector.
Index = dict[str, int]


@dataclass(frozen=True)
class Misuse:
    """What makes a scene unlike the images that a model learned from.

    Attributes:
        cause: A key of ``CAUSES``.
        looks_like: What is odd about it.
        fix: What to do.
    """

    cause: str
    looks_like: str
    fix: str

    def __str__(self) -> str:
        return f"{self.looks_like}; {self.fix}"


# Cause → what the scene looks like, and what to do.
CAUSES = {
    "exchanged": ("red and blue look exchanged", "if they are, exchange them (--bands 3,2,1)"),
    "unscaled": (
        "its brightest values are {bright:g}, those of the training images {high:g}: numbers of more bits, not scaled",
        "say which of its values are dark and bright (--scale LOW:HIGH)",
    ),
    "unit": (
        "its brightest values are {bright:g}, those of the training images {high:g}: numbers from 0 to 1",
        "multiply them by {high:g} (--scale 0:1)",
    ),
    "coarse": ("it looks about four times as coarse as the training images", "use finer imagery, or train on such"),
    "fine": ("it looks about twice as fine as the training images", "predict at a coarser --resolution"),
    "infrared": (
        "its first band doesn't look like the training images' first, rather like near infrared for red",
        "choose the bands in the model's order (--bands)",
    ),
    "inverted": ("its values look inverted, like a negative's", "invert them (--scale {high:g}:{low:g})"),
    "blurred": ("it lacks the training images' fine detail and looks blurred", "use the image as it was delivered"),
    "compressed": ("it shows the blocks of heavy JPEG compression", "use the image as it was before that"),
    "stretched": ("its histogram was stretched for display", "use the values as they were delivered"),
    "gray": ("its bands are all the same, as a gray picture's", "use the bands that the model learned from"),
    "empty": (
        "{constant:.0%} of its pixels have one and the same value, like a border without data",
        "say which value that is (--nodata), or cut the border off",
    ),
    "other": (
        "it is unlike anything among the training images, such as another kind of ground",
        "look at the map before using it, and train on some scenes like this one",
    ),
}


def find_misuse(description: ModelDescription | None, sample: ImageSample) -> Misuse | None:
    """Tell what makes an image unlike those that a model learned from.

    Args:
        description: The model's.
        sample: Pixels of the image, as the model gets them.

    Returns:
        The most likely cause; None where the image is like them, or where too little of either is known.
    """
    images = None if description is None else description.images
    if images is None or not sample.usable:
        return None
    points = sample.points
    groups = feature_groups(points.shape[1])
    if images.groups != tuple(map(len, groups)):
        return None
    training = _Training(images, groups)
    bright = float(np.quantile(points, 0.99))
    relative = (bright - images.low) / (images.high - images.low)
    features = image_features(sample, images.low, images.high)
    cause = training.trace(features, relative, sample.windows[..., 0].size)
    cause = cause or training.unlikeness(features, large=sample.large)
    if cause is None:
        return None
    numbers = {"high": images.high, "low": images.low, "bright": bright, "constant": features[training.at["constant"]]}
    looks_like, fix = (text.format(**numbers) for text in CAUSES[cause])
    return Misuse(cause, looks_like, fix)


class _Training:
    """The training images' distribution, with the least deviations between places, and the faults it can tell.

    Args:
        images: The distribution.
        groups: The names of its features, group by group.

    Attributes:
        at: Feature → place in the vector.
    """

    def __init__(self, images: ImageDistribution, groups: Sequence[Sequence[str]]) -> None:
        self.at: Index = {name: place for place, name in enumerate(chain(*groups))}
        self._mean, self._std = np.array(images.mean), np.array(images.std)
        least = [_LEAST.get(name, _LEAST.get(name.partition("_")[0], _LEAST_OTHERS)) for name in self.at]
        self._deviation = np.hypot(self._std, least)
        self._correlations = (1 - _SHRINKAGE) * images.correlations() + _SHRINKAGE * np.eye(len(self.at))
        self._counted = np.array([name not in TRACES for name in self.at])

    def trace(self, features: Features, bright: float, pixels: int) -> str | None:
        """Name a fault that leaves plain traces in the numbers.

        Args:
            features: The image's.
            bright: Its brightest values, where 0 and 1 are the training images' darkest and brightest.
            pixels: How many were looked at for traces.
        """

        def above(name: str, deviations: float, least: float) -> bool:
            place = self.at[name]
            return bool(features[place] > max(least, self._mean[place] + deviations * self._std[place]))

        if not _DARKEST < bright < _BRIGHTEST:
            return "unit" if bright < _UNIT else "unscaled"
        if above("constant", 4, 0.2):
            return "empty"
        vividness = self.at["vividness"]
        if features[vividness] < _COLORLESS < self._mean[vividness] / 2:
            return "gray"
        if above("gaps", 5, 0.015 + _BYTES / pixels) or (above("lowest", 4, 0.008) and above("highest", 4, 0.008)):
            return "stretched"
        return "compressed" if above("blocks", 3, 0.8) else None

    def unlikeness(self, features: Features, *, large: bool) -> str | None:
        """Name the fault whose undoing brings an image nearest, "other" where none does, None where it is near.

        Args:
            features: The image's.
            large: Whether they are of more than a few objects, such as red soil, that pass for near infrared.
        """
        count = self._counted.sum()
        before = self._distance(features, ())
        best, most = None, 0.0
        for fault in self._faults(features, large):
            after = self._distance(fault.undone, fault.spoiled)
            gain = before - after - fault.least_gain - _PRICE * len(fault.spoiled) - _DOUBT * after
            if gain > most and after < fault.near * (count - len(fault.spoiled)):
                best, most = fault.cause, gain
        return best or ("other" if before > _FAR * count else None)

    def _distance(self, features: Features, spoiled: Sequence[str]) -> float:
        """Return the squared distance of features, some of which may be whatever fits best."""
        known = self._counted.copy()
        known[[self.at[name] for name in spoiled]] = False
        off = ((features - self._mean) / self._deviation)[known]
        return float(off @ np.linalg.solve(self._correlations[np.ix_(known, known)], off))

    def _faults(self, features: Features, large: bool) -> Iterator[_Fault]:
        """Yield the faults that an image may have, undone."""
        at = self.at
        rougher, smooth = self._off(features, "energy_0") > 0, features[at["energy_0"]] < _SMOOTH[0]
        yield _Fault("inverted", inverted(features, at), _named(at, "warm_dark"), 0)
        if not smooth:
            yield _Fault("coarse", *rescaled(features, at, -2), 6, _NEAR_COARSE)
        if not rougher:
            yield _Fault("fine", *rescaled(features, at, 1), 3, _NEAR_SMOOTH)
        if smooth and not rougher and features[at["energy_1"]] < _SMOOTH[1]:
            for octaves in (2, 3, 4):
                spoiled = [f"{name}_{octave}" for name in PER_OCTAVE for octave in range(octaves)]
                yield _Fault("blurred", features, [*spoiled, *_named(at, "lit")], 0, _NEAR_SMOOTH)
        if "warm_level" in at:
            yield _Fault("exchanged", exchanged(features, at), [], 9, _NEAR_EXCHANGED)
            opposite = self._off(features, "opposite_detail_correlation")
            if large and self._off(features, "warm_level") > 0.5 and opposite < -0.5:
                spoiled = [*_named(at, "warm"), *_named(at, "opposite"), "vivid_light"]
                yield _Fault("infrared", features, spoiled, 15)

    def _off(self, features: Features, name: str) -> float:
        """Return by how many deviations a feature is off."""
        place = self.at[name]
        return float((features[place] - self._mean[place]) / self._deviation[place])


@dataclass(frozen=True)
class _Fault:
    """A fault that an image may have.

    Attributes:
        cause: A key of ``CAUSES``.
        undone: Its features without the fault.
        spoiled: Names of those that it says nothing about.
        least_gain: By how much undoing it must lower the squared distance, beside the price of what is spoiled.
        near: Squared deviations for each other feature up to which it explains the image.
    """

    cause: str
    undone: Features
    spoiled: Sequence[str]
    least_gain: float
    near: float = _NEAR


def _named(at: Index, start: str) -> list[str]:
    return [name for name in at if name == start or name.startswith(f"{start}_")]


def exchanged(features: Features, at: Index) -> Features:
    """Exchange the first and the third band: what led is led."""
    undone = features.copy()
    for name in _named(at, "warm"):
        undone[at[name]] = -features[at[name]]
    for name in _named(at, "blue"):
        undone[at[name]] += features[at[name.replace("blue", "warm")]]
    return undone


def inverted(features: Features, at: Index) -> Features:
    """Turn dark into bright."""
    undone = features.copy()
    for name, mirrored in (("mean", "mean"), ("middle", "middle"), ("dark", "bright"), ("bright", "dark")):
        undone[at[name]] = 1 - features[at[mirrored]]
    changing = ("skew", "bumps", "lit", "warm_level", "blue_level", "warm_vivid", "warm_skew", "vivid_light")
    for name in (name for start in changing for name in _named(at, start)):
        undone[at[name]] = -features[at[name]]
    return undone


def rescaled(features: Features, at: Index, octaves: int) -> tuple[Features, list[str]]:
    """Move details to finer octaves, and name those that nobody has seen then."""
    undone, spoiled = features.copy(), [name for name in at if name.startswith("lit") or "detail" in name]
    # The last of energy and peaks is no step from an octave to the next.
    for name, last in zip(PER_OCTAVE, (OCTAVES, OCTAVES - 1, OCTAVES - 1), strict=True):
        for octave in range(OCTAVES):
            if octave < last and 0 <= octave + octaves < last:
                undone[at[f"{name}_{octave}"]] = features[at[f"{name}_{octave + octaves}"]]
            else:
                spoiled.append(f"{name}_{octave}")
    return undone, spoiled
