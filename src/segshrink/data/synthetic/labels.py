"""The true class of every pixel of a synthetic scene, and what a hurried annotator would make of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.data.synthetic.buildings import Building
from segshrink.data.synthetic.geometry import Canvas
from segshrink.data.synthetic.layout import Layout
from segshrink.data.synthetic.noise import fractal_noise
from segshrink.data.synthetic.roads import Road, draw_roads

Labels = NDArray[np.uint8]
# Names and mask colours; five of them are those of the Dubai aerial data set.
CLASSES = (
    ("Building", "#3C1098"),
    ("Land", "#8429F6"),
    ("Road", "#6EC1E4"),
    ("Vegetation", "#FEDD3A"),
    ("Water", "#E2A929"),
    ("Field", "#3FA34D"),
)
BUILDING, LAND, ROAD, VEGETATION, WATER, FIELD = range(len(CLASSES))


def true_labels(layout: Layout) -> Labels:
    """Return the class index (H, W) of what is seen from above at each pixel centre."""
    vegetation = layout.woods | (layout.crowns.cover > 0)
    return _stack(layout, vegetation, layout.parcels.index >= 0, layout.roads, layout.buildings)


def hurried_labels(rng: np.random.Generator, layout: Layout) -> Labels:
    """Return labels (H, W) with the errors of real training masks.

    Roads and buildings come from a map that is a few pixels off, small buildings are missing, wood borders are
    drawn with few corners and single trees not at all, and here and there a region has another class.
    """
    offset = np.clip(rng.normal(0, 1.3, 2), -4, 4)
    roads = tuple(
        Road(road.points + offset + rng.normal(0, 0.8, 2), road.width * float(rng.uniform(0.8, 1.25)), road.main)
        for road in layout.roads
    )
    missed = 0.25 + 0.2 * rng.random()
    buildings = []
    for building in layout.buildings:
        small = building.area < 170 * layout.scale**2
        if rng.random() < (missed if small else 0.04):
            continue
        dx, dy = offset + rng.normal(0, 0.7, 2)
        wings = tuple(wing.moved(float(dx), float(dy)) for wing in building.wings)
        buildings.append(Building(wings, building.height, building.roof))
    woods = _few_corners(layout.woods | (layout.crowns.cover > 0), cell=round(9 * layout.scale))
    fields = layout.parcels.index >= 0
    forgotten = rng.random(layout.parcels.count) < 0.04
    fields = fields & ~forgotten[np.maximum(layout.parcels.index, 0)]
    labels = _stack(layout, woods & ~(layout.water > 0), fields, roads, buildings)
    return _swap_regions(rng, labels)


def _stack(
    layout: Layout,
    vegetation: NDArray[np.bool_],
    fields: NDArray[np.bool_],
    roads: Iterable[Road],
    buildings: Iterable[Building],
) -> Labels:
    """Lay the classes over one another as they hide one another."""
    labels = np.full((layout.size, layout.size), LAND, np.uint8)
    labels[fields] = FIELD
    labels[layout.water > 0] = WATER
    labels[draw_roads(layout.size, tuple(roads)) > 0] = ROAD
    labels[_draw_footprints(layout.size, buildings) > 0] = BUILDING
    # Crowns hide what is below, woods beside a road end at the road.
    labels[vegetation & ((labels == LAND) | (labels == FIELD) | (layout.crowns.cover > 0))] = VEGETATION
    return labels


def _draw_footprints(size: int, buildings: Iterable[Building]) -> Labels:
    canvas = Canvas(size, "L")
    for building in buildings:
        for wing in building.wings:
            canvas.polygon(wing.corners(), 1)
    return canvas.sampled()


def _few_corners(mask: NDArray[np.bool_], *, cell: int) -> NDArray[np.bool_]:
    """Return ``mask`` as seen on a grid of ``cell`` pixels and drawn back with straight borders."""
    height, width = mask.shape
    image = Image.fromarray(mask.astype(np.float32))
    coarse = image.resize((max(2, width // cell), max(2, height // cell)), Image.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)) > 0.5


def _swap_regions(rng: np.random.Generator, labels: Labels) -> Labels:
    """Give about one per cent of the scene, in blobs, a class it is easily taken for."""
    blobs = fractal_noise(rng, labels.shape[0], 60, octaves=2)
    confused = blobs > np.quantile(blobs, 1 - rng.uniform(0.005, 0.025))
    swapped = labels.copy()
    for true, taken_for in ((LAND, VEGETATION), (FIELD, LAND), (VEGETATION, LAND), (WATER, LAND)):
        swapped[confused & (labels == true)] = taken_for
    return swapped
