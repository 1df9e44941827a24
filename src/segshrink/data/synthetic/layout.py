"""What lies where in a synthetic scene: water, roads, buildings, parcels, woods. No colours here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic.buildings import Building, place_buildings
from segshrink.data.synthetic.geometry import Curve, Frame
from segshrink.data.synthetic.noise import Surface, fractal_noise, grow, smooth_noise, without_slivers
from segshrink.data.synthetic.roads import Road, draw_roads, plan_roads
from segshrink.data.synthetic.trees import Crowns, grow_crowns

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Character:
    """How one scene differs from the next; shares are of the scene's area and only aimed at."""

    scale: float  # pixels per nominal pixel: 1.2 is a lower flight
    angle: float  # of the land parcels, radians
    settlement: float
    water: float
    river: bool
    woods: float
    fields: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Character:
        """Draw the character of a scene."""
        town = rng.random() < 0.3
        settlement = float(rng.uniform(0.42, 0.65) if town else rng.uniform(0.12, 0.36))
        water = float(rng.uniform(0.03, 0.16)) if rng.random() < 0.85 else 0.0
        return cls(
            scale=float(rng.uniform(0.85, 1.25)),
            angle=float(rng.uniform(0, math.pi)),
            settlement=settlement,
            water=water,
            river=bool(rng.random() < 0.5),
            woods=float(rng.uniform(0.04, 0.18)),
            fields=float(rng.uniform(0.14, 0.38) * (1.1 - settlement)),
        )


@dataclass(frozen=True)
class Parcels:
    """Cultivated strips: ``index`` (H, W) is -1 off the fields; ``along``, ``across`` give the crop rows' axes."""

    index: NDArray[np.int32]
    count: int
    along: Surface
    across: Surface


@dataclass(frozen=True)
class Layout:
    """One scene's content in scene coordinates; arrays are (size, size)."""

    size: int
    scale: float
    water: Surface  # about the distance to the shore in pixels, positive in the water
    settlement: Mask
    roads: tuple[Road, ...]
    tracks: tuple[Road, ...]  # dirt tracks look like roads and are land
    buildings: tuple[Building, ...]
    parcels: Parcels
    woods: Mask
    crowns: Crowns


def plan_layout(rng: np.random.Generator, size: int) -> Layout:
    """Plan a scene of (size, size) pixels; bigger scenes show more ground, not bigger things."""
    character = Character.random(rng)
    cover_rng, road_rng, building_rng, parcel_rng, tree_rng = rng.spawn(5)
    x = np.arange(size, dtype=np.float32)[None, :] + np.float32(0.5)
    y = x.T
    water = _water_level(cover_rng, character, x, y)
    network = plan_roads(
        road_rng, size, x, y, water=water, scale=character.scale, settlement_share=character.settlement
    )
    paved = draw_roads(size, network.roads) > 0
    buildings, built = place_buildings(
        building_rng, network.roads, blocked=paved | (water > -4), settlement=network.settlement, scale=character.scale
    )
    taken = grow(paved, 3) | grow(built, 3) | grow(water > 0, 4)
    open_land = ~(taken | network.settlement)
    woods_level = fractal_noise(cover_rng, size, 110 * character.scale)
    woods = without_slivers(_best_share(woods_level, open_land, character.woods), 3)
    parcels = _plan_parcels(parcel_rng, character, x, y, free=open_land & ~grow(woods, 4))
    density = _tree_density(tree_rng, network.settlement, parcels, woods, taken=taken)
    crowns = grow_crowns(tree_rng, density, x, y, scale=character.scale, obstacles=paved | built | (water > 0))
    return Layout(
        size,
        character.scale,
        water,
        network.settlement,
        network.roads,
        network.tracks,
        buildings,
        parcels,
        woods,
        crowns,
    )


def _water_level(rng: np.random.Generator, character: Character, x: Surface, y: Surface) -> Surface:
    size = x.size
    if not character.water:
        return np.full((size, size), -1e3, np.float32)
    if character.river:
        origin = (size * rng.uniform(0.2, 0.8), size * rng.uniform(0.2, 0.8))
        frame = Frame(origin, float(rng.uniform(0, math.pi)))
        curve = Curve.random(rng, frame, amplitude=45 * character.scale, wavelength=330 * character.scale)
        half_width = min(character.water * 190, 26.0) * character.scale
        wobble = fractal_noise(rng, size, 70, octaves=3) * np.float32(0.22 * half_width)
        return np.float32(half_width) + wobble - curve.distance(x, y)
    radius = 150 * character.scale
    level = fractal_noise(rng, size, radius, octaves=3)
    centre = rng.uniform(0.1, 0.9, 2) * size
    level = level - np.hypot(x - np.float32(centre[0]), y - np.float32(centre[1])) / np.float32(0.6 * size)
    # The level changes by about 1 over a quarter wavelength: turn it into pixels.
    water: Surface = (level - np.quantile(level, 1 - character.water)) * np.float32(radius / 5)
    return water


def _best_share(level: Surface, allowed: Mask, share: float) -> Mask:
    """Return the allowed pixels of highest ``level``, ``share`` of the scene or all that is allowed."""
    values = level[allowed]
    wanted = round(share * level.size)
    if wanted == 0 or not values.size:
        return np.zeros_like(allowed)
    if wanted >= values.size:
        return allowed
    threshold = np.partition(values, values.size - wanted)[values.size - wanted]
    best: Mask = allowed & (level >= threshold)
    return best


def _plan_parcels(rng: np.random.Generator, character: Character, x: Surface, y: Surface, *, free: Mask) -> Parcels:
    size = x.size
    frame = Frame((size / 2, size / 2), character.angle)
    along, across = frame.along_across(x, y)
    bend = np.float32(rng.uniform(0, 14))
    along = along + smooth_noise(rng, size, 240) * bend
    across = across + smooth_noise(rng, size, 240) * bend
    extent = math.ceil(size * 1.5) + 160
    plan, count = _split_land(rng, extent, scale=character.scale)
    columns = np.clip((along + extent / 2).astype(np.int32), 0, extent - 1)
    rows = np.clip((across + extent / 2).astype(np.int32), 0, extent - 1)
    index = plan[rows, columns]
    inside = index >= 0
    area = np.bincount(index[inside], minlength=count)
    free_area = np.bincount(index[inside & free], minlength=count)
    usable = (free_area > 60) & (free_area > 0.3 * area)
    appeal = free_area / np.maximum(area, 1) + rng.normal(0, 0.35, count)
    order = np.argsort(np.where(usable, -appeal, np.inf))
    needed = np.cumsum(free_area[order]) - free_area[order] < character.fields * size * size
    chosen = np.zeros(count, bool)
    chosen[order] = needed & usable[order]
    sown = without_slivers(inside & free & chosen[np.maximum(index, 0)], 3)
    index = np.where(sown, index, -1).astype(np.int32)
    # Neighbours sow in different directions: swap the axes of some parcels.
    turned = (rng.random(count) < 0.35)[np.maximum(index, 0)]
    return Parcels(index, count, np.where(turned, across, along), np.where(turned, along, across))


def _split_land(rng: np.random.Generator, extent: int, *, scale: float) -> tuple[NDArray[np.int32], int]:
    """Split a square of ``extent`` pixels into numbered rectangles with unnumbered (-1) balks between them."""
    plan = np.full((extent, extent), -1, np.int32)
    waiting = [(0, 0, extent, extent)]
    count = 0
    while waiting:
        top, left, height, width = waiting.pop()
        longest, limit = max(height, width), rng.uniform(50, 150) * scale
        if longest <= limit or longest < 40:
            balk = int(rng.integers(1, 4))
            plan[top + balk : top + height, left + balk : left + width] = count
            count += 1
            continue
        cut = round(longest * rng.uniform(0.32, 0.68))
        if height >= width:
            waiting += [(top, left, cut, width), (top + cut, left, height - cut, width)]
        else:
            waiting += [(top, left, height, cut), (top, left + cut, height, width - cut)]
    return plan, count


def _tree_density(rng: np.random.Generator, settlement: Mask, parcels: Parcels, woods: Mask, *, taken: Mask) -> Surface:
    """Return the chance (H, W) that a crown stands at a pixel's cell."""
    size = woods.shape[0]
    fields = parcels.index >= 0
    hedges = grow(fields, 3) & ~fields & (smooth_noise(rng, size, 60) > 0.6)
    groves = smooth_noise(rng, size, 45) > 1.9
    density = np.where(settlement, rng.uniform(0.02, 0.12), rng.uniform(0, 0.02)).astype(np.float32)
    density[hedges] = 0.45
    density[groves] = 0.5
    density[taken | fields] = 0
    density[settlement & taken] = 0.05
    density[woods] = 0.97
    return density
