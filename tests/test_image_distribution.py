"""Statistics of training images: what a file keeps of them, in how few bytes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segshrink.errors import ModelError
from segshrink.image_distribution import ImageDistribution

GROUPS = (3, 0, 4)


def known(scenes: int = 50, groups: tuple[int, ...] = GROUPS) -> tuple[np.ndarray, ImageDistribution]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(scenes, sum(groups))) @ rng.normal(size=(sum(groups), sum(groups))) + 3
    return features, ImageDistribution.of(features, groups, low=0, high=255)


def test_statistics_are_numpys() -> None:
    features, images = known()
    np.testing.assert_allclose(images.mean, features.mean(axis=0))
    np.testing.assert_allclose(images.std, features.std(axis=0))
    matrix = np.corrcoef(features.T)
    matrix[:3, 3:] = matrix[3:, :3] = 0
    np.testing.assert_allclose(images.correlations(), matrix, atol=1e-9)


def test_a_file_keeps_them_rounded() -> None:
    _, images = known()
    again = ImageDistribution.from_dict(json.loads(json.dumps(images.to_dict())))
    assert again is not None
    assert (again.scenes, again.low, again.high, again.groups) == (50, 0, 255, GROUPS)
    np.testing.assert_allclose(again.mean, images.mean, rtol=1e-3)
    np.testing.assert_allclose(again.correlations(), images.correlations(), atol=1 / 250)
    assert ImageDistribution.from_dict(again.to_dict()) == again


def test_they_are_small() -> None:
    assert len(json.dumps(known(groups=(6, 14, 18, 12))[1].to_dict())) < 1000


def test_another_version_is_left_alone() -> None:
    assert ImageDistribution.from_dict({**known()[1].to_dict(), "version": 2}) is None


@pytest.mark.parametrize(
    "changes",
    [{"groups": [3, 4, 1]}, {"groups": [7]}, {"range": [5, 5]}, {"std": ""}, {"range": [0, float("inf")]}],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="damaged"):
        ImageDistribution.from_dict({**known()[1].to_dict(), **changes})
