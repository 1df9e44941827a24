"""One synthetic scene from (seed, split, number): picture, true labels, labels as an annotator gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic import camera, ground, objects
from segshrink.data.synthetic.labels import hurried_labels, true_labels
from segshrink.data.synthetic.layout import Layout, plan_layout
from segshrink.data.synthetic.palette import Palette
from segshrink.errors import ConfigError

Split = Literal["train", "val", "unlabeled"]
SMALLEST_SIZE = 32


@dataclass(frozen=True)
class SyntheticScene:
    """A generated scene: ``image`` (H, W, 3) uint8 RGB; ``truth`` and ``labels`` (H, W) uint8 class indices.

    ``labels`` is what the mask file holds: the truth, but for the errors of an annotator in the train split.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def generate_scene(seed: int, split: Split, *, number: int, size: int = 384) -> SyntheticScene:
    """Generate scene ``number`` of a split; it depends on these four arguments and on nothing else.

    Args:
        seed: Of the whole data set, >= 0.
        split: "train" (labels with errors), "val" or "unlabeled" (labels are the truth).
        number: Which scene of the split, from 0.
        size: Height and width in pixels, >= 32; a bigger scene shows more ground.

    Raises:
        ConfigError: An argument is outside its range.
    """
    splits = get_args(Split)
    if split not in splits:
        raise ConfigError(f"split is {split!r}; give one of {', '.join(splits)}")
    if seed < 0 or number < 0:
        raise ConfigError(f"seed is {seed} and number is {number}; neither may be negative")
    if size < SMALLEST_SIZE:
        raise ConfigError(f"size is {size} pixels; give at least {SMALLEST_SIZE}")
    rng = np.random.default_rng((seed, splits.index(split), number))
    layout_rng, look_rng, label_rng = rng.spawn(3)
    layout = plan_layout(layout_rng, size)
    truth = true_labels(layout)
    labels = hurried_labels(label_rng, layout) if split == "train" else truth
    return SyntheticScene(_photograph(look_rng, layout), truth, labels)


def _photograph(rng: np.random.Generator, layout: Layout) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) of a layout."""
    palette = Palette.random(rng)
    picture = ground.paint_land(rng, layout, palette)
    ground.paint_fields(rng, picture, layout, palette)
    objects.paint_tracks(rng, picture, layout, palette)
    ground.paint_water(rng, picture, layout, palette)
    objects.paint_roads(rng, picture, layout, palette)
    depth = float(rng.uniform(0.45, 0.75))
    shadow = np.maximum(objects.building_shadow(layout, palette), ground.tree_shadow(layout, palette))
    camera.cast_shadow(picture, shadow, depth=depth)
    objects.paint_roofs(rng, picture, layout, palette)
    ground.paint_trees(rng, picture, layout, palette)
    camera.light_terrain(rng, picture)
    return camera.record(rng, picture)
