"""Drawing synthetic aerial scenes: what lies where, and what it looks like from above.

Arrays of a scene are (size, size). Lengths are in pixels and angles in radians; x points right and y down. Colors are
RGB in 0 .. 1.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Values = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int32]
Colors = tuple[tuple[int, int, int], ...]

_MAIN_ROAD, _STREET = 9.0, 7.0  # widths
# Colors in spring, summer and autumn, 0 .. 255.
_GRASS = ((112, 138, 72), (132, 138, 84), (140, 128, 86))
_DRY_GRASS = ((138, 148, 92), (166, 154, 108), (158, 138, 100))
_LEAVES = ((62, 98, 44), (44, 74, 38), (112, 88, 40))
_OTHER_LEAVES = ((88, 118, 54), (64, 90, 44), (142, 98, 44))
_WATER = ((52, 84, 98), (42, 76, 92), (54, 78, 88))
_SOIL, _ASPHALT, _LANE_MARK, _HAZE = (150, 126, 98), (140, 138, 138), (235, 232, 220), (178, 189, 199)
_CROPS = ((92, 136, 58), (66, 106, 48), (206, 190, 74), (204, 176, 112), (148, 104, 74), (126, 86, 66))
_ROOFS = ((172, 84, 60), (150, 70, 56), (196, 112, 76), (92, 90, 98), (216, 214, 208), (178, 160, 140))
# Shapes of roofs, as numbers in `Building`.
_GABLE, _HIP, _FLAT = range(3)


@dataclass(frozen=True)
class Traits:
    """How one scene differs from the next; numbers are in 0 .. 1."""

    settlement: float  # from a hamlet to a town
    water: float
    woods: float
    season: float  # from spring to autumn
    river: bool  # or a lake


class Building(NamedTuple):
    """A rectangular building around (x, y), turned by ``angle``, with the shape of its roof."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    height: float
    roof: int

    @property
    def reach(self) -> float:
        """Distance from the middle to the corners."""
        return math.hypot(self.length, self.width) / 2

    def corners(self) -> list[tuple[float, float]]:
        """Return the four corners (x, y) in drawing order."""
        corner, other = complex(self.length, self.width) / 2, complex(-self.length, self.width) / 2
        turned = [cmath.rect(1, self.angle) * point for point in (corner, other, -corner, -other)]
        return [(self.x + point.real, self.y + point.imag) for point in turned]


@dataclass(frozen=True)
class Axes:
    """Coordinates along and across a line through ``origin`` (x + iy) that bends like a sine about its direction."""

    origin: complex
    angle: float
    bend: float
    wavelength: float
    phase: float

    @classmethod
    def random(cls, rng: np.random.Generator, size: int, *, bend: float) -> Axes:
        """Draw axes through the middle of a scene; ``bend`` is the largest distance of the line from a straight one."""
        origin = complex(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)) * size
        angle, phase = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
        return cls(origin, angle, bend * rng.uniform(0.5, 1), rng.uniform(280, 420), phase)

    def coordinates(self, size: int) -> tuple[Values, Values]:
        """Return how far along and across each pixel lies."""
        y, x = np.indices((size, size), np.float32)
        turned = (x + 1j * y - self.origin) * cmath.rect(1, -self.angle)
        along = turned.real
        return along, turned.imag - self.bend * np.sin(along * (2 * math.pi / self.wavelength) + self.phase)

    def place(self, along: float, across: float) -> tuple[float, float, float]:
        """Return x and y of a point, and the line's angle there."""
        turn = along * 2 * math.pi / self.wavelength + self.phase
        point = self.origin + cmath.rect(1, self.angle) * complex(along, across + self.bend * math.sin(turn))
        slope = self.bend * 2 * math.pi / self.wavelength * math.cos(turn)
        return point.real, point.imag, self.angle + math.atan(slope)


@dataclass(frozen=True)
class Layout:
    """What lies where in a scene."""

    water: Values  # about the distance to the shore, positive in the water
    road: Values  # distance to the road's edge, positive on the road
    lane_marks: Mask
    buildings: list[Building]
    footprints: Indices  # which building, -1: none
    parcels: Indices  # which field, -1: none
    furrows: Values  # distance across the rows of crops
    woods: Mask
    # (4, size, size): height in 0 .. 1, slope to the east and to the south in -1 .. 1, a number in 0 .. 1 per tree.
    crowns: Values


def smooth_noise(rng: np.random.Generator, size: int, wavelength: float) -> Values:
    """Return (size, size) noise of mean 0 and deviation about 1 that varies over ``wavelength`` pixels."""
    cells = size / wavelength
    lattice = rng.standard_normal((math.ceil(cells) + 5,) * 2, dtype=np.float32)
    left, top = rng.uniform(2, 3, 2)
    box = (left, top, left + cells, top + cells)
    return np.asarray(Image.fromarray(lattice).resize((size, size), Image.Resampling.BICUBIC, box)) * 1.25


def fractal_noise(rng: np.random.Generator, size: int, wavelength: float) -> Values:
    """Return (size, size) noise of deviation about 1: four octaves from ``wavelength`` on, each half as strong."""
    octaves = [smooth_noise(rng, size, wavelength / 2**octave) * 0.5**octave for octave in range(4)]
    return np.asarray(np.sum(octaves, axis=0)) / 1.15


def plan_layout(rng: np.random.Generator, size: int, traits: Traits) -> Layout:
    """Plan a scene of (size, size) pixels; a bigger scene shows more ground, not bigger things."""
    water = _plan_water(rng, size, traits)
    town = Axes.random(rng, size, bend=30)
    along, across = town.coordinates(size)
    level = 0.5 * fractal_noise(rng, size, 200) - np.hypot(along, across) / (0.35 * size)
    settlement = _highest(level, water < -8, 0.2 + 0.32 * traits.settlement)
    spacing, block = rng.uniform(70, 84), rng.uniform(100, 150)
    main_roads = np.maximum(_MAIN_ROAD / 2 - np.abs(across), _STREET / 2 - np.abs(along))
    streets = _STREET / 2 - np.minimum(_distance_to_multiple(across, spacing), _distance_to_multiple(along, block))
    road = np.where(settlement, np.maximum(streets, main_roads), main_roads)
    lane_marks = (np.abs(across) < 0.5) & (along % 12 < 6)
    blocked = (road > 0) | (water > -5)
    buildings, footprints = _place_buildings(rng, town, spacing, settlement & ~blocked)
    taken = ndimage.binary_dilation(blocked | (footprints >= 0), iterations=4)
    free = ~(taken | settlement)
    woods = _highest(fractal_noise(rng, size, 120), free, 0.04 + 0.18 * traits.woods)
    woods = ndimage.binary_opening(woods, iterations=3)
    free &= ~ndimage.binary_dilation(woods, iterations=3)
    parcels, furrows = _plan_fields(rng, free, share=0.38 - 0.22 * traits.settlement)
    density = np.where(settlement, 0.002, 0.0003) + 0.01 * (smooth_noise(rng, size, 45) > 1.9)
    density = np.where(woods, 0.03, np.where(taken | (parcels >= 0), 0, density))
    return Layout(water, road, lane_marks, buildings, footprints, parcels, furrows, woods, _grow_crowns(rng, density))


def _plan_water(rng: np.random.Generator, size: int, traits: Traits) -> Values:
    share = 0.03 + 0.11 * traits.water
    if traits.river:
        _, across = Axes.random(rng, size, bend=45).coordinates(size)
        return 180 * share + 3 * fractal_noise(rng, size, 70) - np.abs(across)
    rows, columns = np.indices((size, size), np.float32) / size
    level = fractal_noise(rng, size, 150) - 2 * np.hypot(columns - rng.uniform(0.1, 0.9), rows - rng.uniform(0.1, 0.9))
    # The level rises by about 1 within 30 pixels.
    return np.asarray(30 * (level - np.float32(np.quantile(level, 1 - share))))


def _highest(level: Values, allowed: Mask, share: float) -> Mask:
    """Return the allowed pixels of highest ``level``: ``share`` of the scene, or all that is allowed."""
    values = level[allowed]
    if values.size <= share * level.size:
        return allowed
    highest: Mask = allowed & (level >= np.quantile(values, 1 - share * level.size / values.size))
    return highest


def _distance_to_multiple(distance: Values, spacing: float) -> Values:
    return np.abs(distance - spacing * np.round(distance / spacing))


def _place_buildings(
    rng: np.random.Generator, town: Axes, spacing: float, free: Mask
) -> tuple[list[Building], Indices]:
    """Place houses and a few halls on free ground along the streets; returns them and where they stand."""
    size = len(free)
    clearance = ndimage.distance_transform_edt(free)
    footprints = Image.new("I", (size, size), -1)
    buildings: list[Building] = []
    for building in _candidates(rng, town, spacing, size):
        row, column = int(building.y), int(building.x)
        if not (0 <= row < size and 0 <= column < size) or clearance[row, column] < building.reach:
            continue
        if all(math.hypot(building.x - b.x, building.y - b.y) > building.reach + b.reach for b in buildings):
            ImageDraw.Draw(footprints).polygon(building.corners(), fill=len(buildings))
            buildings.append(building)
    return buildings, np.asarray(footprints)


def _candidates(rng: np.random.Generator, town: Axes, spacing: float, size: int) -> Iterator[Building]:
    streets = range(-math.ceil(size / spacing), math.ceil(size / spacing))
    for street, side in ((street, side) for street in streets for side in (-1, 1)):
        along = float(-size)
        while along < size:
            along += rng.uniform(25, 34)
            hall = rng.random() < 0.06
            length, width = rng.uniform(17, 26) * (1 + hall), rng.uniform(12, 17) * (1 + hall)
            setback = _MAIN_ROAD / 2 + math.hypot(length, width) / 2 + rng.uniform(1, 3)
            x, y, angle = town.place(along, street * spacing + side * setback)
            angle += rng.normal(0, 0.04) + (0, 0, 0, math.pi / 2)[rng.integers(4)]
            roof = _FLAT if hall else (_GABLE, _GABLE, _HIP, _FLAT)[rng.integers(4)]
            yield Building(x, y, angle, length, width, rng.uniform(5, 8), roof)


def _plan_fields(rng: np.random.Generator, free: Mask, *, share: float) -> tuple[Indices, Values]:
    """Split the land into parcels and sow some; returns the field of each pixel, and the distance across furrows."""
    size = len(free)
    along, across = Axes.random(rng, size, bend=10).coordinates(size)
    row = np.searchsorted(np.cumsum(rng.uniform(50, 90, math.ceil(size / 25))) - 1.5 * size, across)
    lengths, shifts = rng.uniform(60, 130, row.max() + 1), rng.uniform(0, 130, row.max() + 1)
    column = ((along + shifts[row]) // lengths[row]).astype(int)
    _, parcels = np.unique(row * size + column, return_inverse=True)
    parcels = parcels.reshape(size, size).astype(np.int32)
    usable = np.bincount(parcels[free], minlength=parcels.max() + 1)
    order = rng.permutation(len(usable))
    sown = np.zeros(len(usable), bool)
    sown[order] = np.cumsum(usable[order]) - usable[order] / 2 <= share * size**2
    fields = ndimage.binary_opening(free & sown[parcels], iterations=4)
    turned = rng.random(len(usable)) < 0.4
    return np.where(fields, parcels, -1), np.where(turned[parcels], along, across)


def _grow_crowns(rng: np.random.Generator, density: Values) -> Values:
    """Return the crowns, domes of trees that stand at random, at a pixel with the chance ``density``."""
    stems = rng.random(density.shape) < density
    distance, (row, column) = ndimage.distance_transform_edt(~stems, return_indices=True)
    radius = rng.uniform(3.5, 6.5, density.shape)[row, column]
    under = (distance < radius) & stems.any()
    y, x = np.indices(density.shape)
    height, east, south = 1 - (distance / radius) ** 2, (x - column) / radius, (y - row) / radius
    tint = rng.random(density.shape)[row, column]
    return np.where(under, [height, east, south, tint], 0).astype(np.float32)


def paint(rng: np.random.Generator, layout: Layout, season: float) -> NDArray[np.uint8]:
    """Return the picture (size, size, 3) of a layout; ``season`` goes from spring (0) to autumn (1)."""
    size = len(layout.water)
    dome, east, south, tint = layout.crowns
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(38, 58))
    flat, rise = math.cos(elevation), math.sin(elevation)
    sun = np.array([math.cos(azimuth) * flat, math.sin(azimuth) * flat, rise], np.float32)
    picture = _paint_land(rng, layout, season)
    _paint_water(rng, picture, layout.water, season)
    _cover(picture, _color(rng, _SOIL), np.clip((layout.road + 2) / 2, 0, 0.5))
    _cover(picture, _color(rng, _ASPHALT) * _texture(rng, size, 0.05, 2), np.clip(layout.road + 0.5, 0, 1))
    _cover(picture, _color(rng, _LANE_MARK), 0.8 * layout.lane_marks)
    heights = np.array([*(building.height for building in layout.buildings), 0], np.float32)[layout.footprints]
    shadow = _cast_shadow(np.maximum(heights, 7 * np.sqrt(dome)), sun)
    picture *= 1 - shadow[..., None] * np.array([0.55, 0.52, 0.46], np.float32)
    _paint_roofs(rng, picture, layout, sun)
    leaves, other_leaves = _seasonal(_LEAVES, season), _seasonal(_OTHER_LEAVES, season)
    _cover(picture, leaves / 2, 0.85 * layout.woods)
    upward = np.sqrt(np.clip(1 - east**2 - south**2, 0, 1))
    light = np.clip(east * sun[0] + south * sun[1] + upward * sun[2], 0, 1)
    tint = np.clip(tint + 0.2 * smooth_noise(rng, size, 80), 0, 1)[..., None]
    foliage = (leaves + tint * (other_leaves - leaves)) * _texture(rng, size, 0.08, 1.6)
    _cover(picture, foliage * (0.5 + 0.7 * light)[..., None], np.clip(3 * dome, 0, 1))
    return _photograph(rng, picture)


def _paint_land(rng: np.random.Generator, layout: Layout, season: float) -> Values:
    """Return grass with bare soil, and fields with furrows."""
    size = len(layout.water)
    dryness = np.clip(0.5 + 0.4 * fractal_noise(rng, size, 130), 0, 1)[..., None]
    grass, dry_grass = _seasonal(_GRASS, season), _seasonal(_DRY_GRASS, season)
    picture: Values = grass + dryness * (dry_grass - grass)
    _cover(picture, _color(rng, _SOIL), np.clip(0.6 * fractal_noise(rng, size, 60) - 0.5, 0, 0.8))
    picture *= _texture(rng, size, 0.05, 2.2) * _texture(rng, size, 0.05, 6)
    fields = layout.parcels >= 0
    parcels = layout.parcels[fields]
    count = layout.parcels.max() + 1
    crops, period, strength = _colors(rng, _CROPS, count), rng.uniform(4.5, 7, count), rng.uniform(0.08, 0.16, count)
    furrows = strength[parcels] * np.sin(layout.furrows[fields] * 2 * math.pi / period[parcels])
    picture[fields] = crops[parcels] * _texture(rng, size, 0.05, 70)[fields] * (1 + furrows)[:, None]
    return picture


def _paint_water(rng: np.random.Generator, picture: Values, water: Values, season: float) -> None:
    """Paint wet banks, and water that is darker where it is deep."""
    _cover(picture, _color(rng, _SOIL) * 0.8, np.clip(1 + water / 4, 0, 0.6))
    depth = np.clip(water / 14, 0, 1)[..., None]
    ripples = _texture(rng, len(water), 0.03, 2.5) * _texture(rng, len(water), 0.04, 90)
    _cover(picture, _seasonal(_WATER, season) * ripples * (1.15 - 0.25 * depth), np.clip(water + 0.5, 0, 1))


def _paint_roofs(rng: np.random.Generator, picture: Values, layout: Layout, sun: Values) -> None:
    """Paint roofs, each face as bright as it is turned to the sun: ridged, or flat with a parapet and dark boxes."""
    row, column = np.nonzero(layout.footprints >= 0)
    building = layout.footprints[row, column]
    x, y, angle, length, width, _, roof = np.array(layout.buildings).reshape(-1, 7)[building].T
    along = (column - x) * np.cos(angle) + (row - y) * np.sin(angle)
    across = (row - y) * np.cos(angle) - (column - x) * np.sin(angle)
    to_end, to_side = length / 2 - np.abs(along), width / 2 - np.abs(across)
    at_end = (roof == _HIP) & (to_end < to_side)
    downhill = np.where(at_end, angle + np.pi * (along < 0), angle + np.pi / 2 * np.sign(across))
    ridged = 0.4 * (np.cos(downhill) * sun[0] + np.sin(downhill) * sun[1]) + 0.12 * (np.abs(across) < 0.6)
    boxes = smooth_noise(rng, len(layout.water), 6)[row, column] > 1.5
    flat = 0.14 * (np.minimum(to_end, to_side) < 1.5) - 0.25 * boxes
    picture[row, column] = (
        _colors(rng, _ROOFS, len(layout.buildings))[building] * (1 + np.where(roof == _FLAT, flat, ridged))[:, None]
    )


def _cast_shadow(height: Values, sun: Values) -> Values:
    """Return the share (0 .. 1) of the light from ``sun``, a unit vector, that higher things take away."""
    x, y, z = sun / np.hypot(sun[0], sun[1])
    shadow = np.zeros(height.shape, bool)
    for step in range(1, math.ceil(height.max() / z) + 1):
        shadow |= ndimage.shift(height, (-step * y, -step * x), order=0) - step * z > height + 0.5
    return np.asarray(ndimage.gaussian_filter(shadow.astype(np.float32), 0.6))


def _photograph(rng: np.random.Generator, picture: Values) -> NDArray[np.uint8]:
    """Return the picture as a camera records it: exposure, white balance, haze, blur and noise of its own."""
    picture = picture * np.exp(rng.normal(0, 0.08) + rng.normal(0, 0.025, 3)).astype(np.float32)
    _cover(picture, _color(rng, _HAZE), np.full(picture.shape[:2], rng.uniform(0, 0.12)))
    picture = np.asarray(ndimage.gaussian_filter(picture, (0.55, 0.55, 0))) * 255
    picture += rng.uniform(1.5, 4) * rng.standard_normal(picture.shape, np.float32)
    return np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)


def _cover(picture: Values, color: Values, share: Values) -> None:
    """Lay ``color``, (3,) or (size, size, 3), over the picture in place where ``share`` is above 0."""
    picture += share[..., None].astype(np.float32) * (color - picture)


def _texture(rng: np.random.Generator, size: int, strength: float, wavelength: float) -> Values:
    """Return factors (size, size, 1) around 1."""
    return (1 + strength * smooth_noise(rng, size, wavelength))[..., None]


def _color(rng: np.random.Generator, color: tuple[int, int, int]) -> Values:
    """Return a color (3,) near ``color`` (0 .. 255)."""
    return (np.array(color) / 255 * np.exp(rng.normal(0, 0.05) + rng.normal(0, 0.02, 3))).astype(np.float32)


def _colors(rng: np.random.Generator, choices: Colors, count: int) -> Values:
    """Return ``count`` colors (count, 3), each near one of the choices (0 .. 255)."""
    return np.array([_color(rng, choices[k]) for k in rng.integers(len(choices), size=count)]).reshape(count, 3)


def _seasonal(colors: Colors, season: float) -> Values:
    """Return the color (3,) at ``season`` of those in spring (0), summer (0.5) and autumn (1)."""
    return np.array([np.interp(2 * season, range(3), band) / 255 for band in zip(*colors, strict=True)], np.float32)
