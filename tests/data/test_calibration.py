from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segshrink.data import Dataset, SceneStore, calibration, calibration_tiles, open_dataset
from segshrink.errors import ConfigError


@pytest.fixture
def dataset(painter) -> Dataset:
    painter.pairs("north/a", "north/b", "north/c", "north/d", "south/e", size=(96, 96))
    return open_dataset(painter.describe())


def test_tiles_are_the_same_at_every_call(dataset: Dataset) -> None:
    first, second = (calibration_tiles(dataset, count=3) for _ in range(2))
    assert len(first) == 3
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    other_seed = calibration_tiles(dataset, count=3, seed=1)
    assert not all(np.array_equal(one, other) for one, other in zip(first, other_seed, strict=True))


def test_every_scene_takes_part_before_one_gives_a_second_tile(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "TILE", 48)
    monkeypatch.setattr(calibration, "OVERLAP", 0)
    store = SceneStore(dataset.train, dataset.classes)
    scenes = [np.asarray(store.image(number)).transpose(2, 0, 1) for number in range(4)]
    tiles = calibration_tiles(dataset, count=6)
    assert all(tile.shape == (3, 48, 48) and tile.dtype == np.uint8 for tile in tiles)

    def scene_of(tile: np.ndarray) -> int:
        parts = [(row, col) for row in (0, 48) for col in (0, 48)]
        return next(
            number
            for number, scene in enumerate(scenes)
            if any(np.array_equal(tile, scene[:, row : row + 48, col : col + 48]) for row, col in parts)
        )

    found = [scene_of(tile) for tile in tiles]
    assert sorted(found[:4]) == [0, 1, 2, 3]
    assert len({tile.tobytes() for tile in tiles}) == 6
    assert len(calibration_tiles(dataset, count=100)) == 16


def test_an_empty_set_and_a_bad_count_are_named(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="neither training nor unlabeled images"):
        calibration_tiles(replace(dataset, train=(), unlabeled=()), count=4)
    with pytest.raises(ConfigError, match="at least 1 image, found 0"):
        calibration_tiles(dataset, count=0)


def test_a_model_is_calibrated_on_what_its_working_size_shows_it(dataset: Dataset) -> None:
    (whole,) = calibration_tiles(dataset, count=1, resize={"longest": 64})
    shapes = {SceneStore(dataset.train, dataset.classes).shape(index) for index in range(len(dataset.train))}
    assert whole.shape[1:] in shapes
    small, large = (calibration_tiles(dataset, count=1, resize=share)[0].shape for share in (8.0, 0.5))
    assert small[1:] == (64, 64)
    assert large[1:] in shapes
