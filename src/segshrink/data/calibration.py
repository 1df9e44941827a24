"""Tiles that ranges of activations are observed on, and costs measured with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.data.sources import Dataset, Sample
from segshrink.data.store import SceneStore
from segshrink.errors import ConfigError
from segshrink.tiling import Window, grid
from segshrink.working_size import Resize, depends_on_image, zoom

# What ``Predictor`` cuts by default: a model is calibrated on what it will see.
TILE, OVERLAP = 512, 64
# Images that pruning looks at, and their largest side.
_EXAMPLES, _LARGEST_EXAMPLE = 8, 256


def calibration_tiles(
    dataset: Dataset, *, count: int, seed: int = 0, resize: Resize | None = None
) -> list[NDArray[Any]]:
    """Draw tiles of a data set's training and unlabeled images, the same at every call.

    As many scenes as possible take part: every scene gives a tile before one gives a second.

    Args:
        dataset: The data set; its validation images are left for the judgment.
        count: Tiles wanted, at least 1; fewer come where the images hold fewer.
        seed: Of the draw.
        resize: Working size of the model that sees them.

    Returns:
        Raw pixel values (bands, H, W) each, H and W at most 512 at the working size; whole images where only those say
        what it is.

    Raises:
        ConfigError: ``count`` is below 1, or there is no image to draw from.
        FileError: An image can't be read.
    """
    if count < 1:
        raise ConfigError(f"calibration needs at least 1 image, found {count}; give more")
    samples = (*dataset.train, *dataset.unlabeled)
    if not samples:
        raise ConfigError(
            f"data set '{dataset.description.name}' has neither training nor unlabeled images to calibrate with; "
            "name some under 'split' or 'unlabeled'"
        )
    generator = np.random.default_rng(seed)
    drawn = [samples[position] for position in generator.permutation(len(samples))[:count]]
    store = SceneStore(drawn, dataset.classes)
    return [
        np.ascontiguousarray(store.image(scene)[window.slices].transpose(2, 0, 1))
        for scene, window in _draw(store, drawn, count, generator, resize)
    ]


def example_pixels(dataset: Dataset) -> NDArray[Any]:
    """Return raw pixels (N, bands, H, W) of a data set, H and W at most 256, to see what its images are like.

    Raises:
        ConfigError: There is no image to draw from.
        FileError: An image can't be read.
    """
    tiles = calibration_tiles(dataset, count=_EXAMPLES)
    height, width = (min(_LARGEST_EXAMPLE, *(tile.shape[side] for tile in tiles)) for side in (1, 2))
    return np.stack([tile[:, :height, :width] for tile in tiles])


def _draw(
    store: SceneStore, samples: list[Sample], count: int, generator: np.random.Generator, resize: Resize | None
) -> list[tuple[int, Window]]:
    """Return up to ``count`` pairs of scene number and window, scene after scene in turn."""
    windows = []
    tile, overlap = (round(side / zoom(resize)) for side in (TILE, OVERLAP))
    for scene in range(len(samples)):
        shape = store.shape(scene)
        of_scene = grid(*shape, tile=max(shape) + overlap if depends_on_image(resize) else tile, overlap=overlap)
        windows.append([of_scene[position] for position in generator.permutation(len(of_scene))])
    turns = range(max(len(of_scene) for of_scene in windows))
    in_turn = [
        (scene, of_scene[turn]) for turn in turns for scene, of_scene in enumerate(windows) if turn < len(of_scene)
    ]
    return in_turn[:count]
