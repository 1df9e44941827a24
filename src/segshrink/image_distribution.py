"""What the images look like that a model learned from: mean and covariance of their features, small enough for a file.

``imagery.image_features`` says what the features are.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError

# Raised when features change their meaning; statistics of other versions are left alone.
VERSION = 1
# Steps between -1 and 1 that correlations are rounded to.
_STEPS = 127
_LEAST_STD = 1e-9


@dataclass(frozen=True)
class ImageDistribution:
    """Statistics of features over scenes.

    Attributes:
        scenes: How many scenes.
        low: The pixel value that counts as 0 in the features.
        high: The one that counts as 1.
        mean: Of each of F features.
        std: Of each.
        groups: How many features each group has; those of different groups are taken as independent.
        correlation: Of each pair inside a group, group after group, as ``numpy.triu_indices(n, 1)`` orders them.

    Raises:
        ModelError: Numbers don't fit together, or aren't finite.
    """

    scenes: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    groups: tuple[int, ...]
    correlation: tuple[float, ...]

    def __post_init__(self) -> None:
        pairs = sum(count * (count - 1) // 2 for count in self.groups)
        finite = all(map(math.isfinite, (self.low, self.high, *self.mean, *self.std, *self.correlation)))
        if (
            not finite
            or self.high <= self.low
            or min(self.std, default=0) < 0
            or min(self.groups, default=0) < 0
            or not len(self.mean) == len(self.std) == sum(self.groups)
            or len(self.correlation) != pairs
        ):
            raise ModelError("the statistics of the training images are damaged; train or save the model again")

    @classmethod
    def of(
        cls, features: NDArray[np.float64], groups: tuple[int, ...], *, low: float, high: float
    ) -> ImageDistribution:
        """Take the statistics of features (scenes, F)."""
        mean, std = features.mean(axis=0), features.std(axis=0)
        standard = (features - mean) / np.maximum(std, _LEAST_STD)
        correlation = (standard.T @ standard / len(features))[_pairs(groups)]
        return cls(len(features), low, high, _numbers(mean), _numbers(std), groups, _numbers(correlation))

    def correlations(self) -> NDArray[np.float64]:
        """Return the correlations as a matrix (F, F)."""
        matrix = np.zeros((len(self.mean), len(self.mean)))
        matrix[_pairs(self.groups)] = self.correlation
        return matrix + matrix.T + np.eye(len(matrix))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping; numbers are rounded to 16 bits, correlations to 8."""
        rounded = np.rint(np.array(self.correlation) * _STEPS).clip(-_STEPS, _STEPS).astype(np.int8)
        return {
            "version": VERSION,
            "scenes": self.scenes,
            "range": [self.low, self.high],
            "mean": _encoded(np.array(self.mean, "<f2")),
            "std": _encoded(np.array(self.std, "<f2")),
            "groups": list(self.groups),
            "correlation": _encoded(rounded),
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ImageDistribution | None:
        """Read what ``to_dict`` gave; None of another version. Raises what a wrong kind of value raises."""
        if mapping["version"] != VERSION:
            return None
        low, high = mapping["range"]
        mean, std, correlation = (
            np.frombuffer(base64.b64decode(mapping[name], validate=True), kind).astype(np.float64)
            for name, kind in (("mean", "<f2"), ("std", "<f2"), ("correlation", np.int8))
        )
        groups = tuple(int(count) for count in mapping["groups"])
        steps = _numbers(correlation / _STEPS)
        return cls(int(mapping["scenes"]), float(low), float(high), _numbers(mean), _numbers(std), groups, steps)


def _pairs(groups: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the pairs of features that share a group."""
    group = np.repeat(np.arange(len(groups)), groups)
    rows, cols = np.triu_indices(len(group), 1)
    inside = group[rows] == group[cols]
    return rows[inside], cols[inside]


def _numbers(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())


def _encoded(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
