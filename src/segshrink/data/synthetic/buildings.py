"""Buildings along roads: houses, sheds behind them and halls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic.geometry import Points, Rectangle
from segshrink.data.synthetic.roads import Road

Mask = NDArray[np.bool_]
ROOF_SHAPES = ("gable", "hip", "flat")


@dataclass(frozen=True)
class Building:
    """One building: ``wings`` share a roof shape; ``height`` is in pixels of ground."""

    wings: tuple[Rectangle, ...]
    height: float
    roof: str

    @property
    def area(self) -> float:
        """Area of the wings in pixels, overlaps counted twice."""
        return sum(wing.length * wing.width for wing in self.wings)


class _Ground:
    """What is still free to build on."""

    def __init__(self, blocked: Mask) -> None:
        self._blocked = blocked.copy()
        self.built = np.zeros_like(blocked)

    def fits(self, wings: tuple[Rectangle, ...], *, margin: float) -> bool:
        """Whether no wing, widened by ``margin`` pixels, touches blocked ground."""
        return not any(self._blocked[self._window(wing, margin)][self._inside(wing, margin)].any() for wing in wings)

    def take(self, wings: tuple[Rectangle, ...]) -> None:
        """Block the ground under the wings."""
        for wing in wings:
            window, inside = self._window(wing, 0), self._inside(wing, 0)
            self._blocked[window] |= inside
            self.built[window] |= inside

    def _window(self, wing: Rectangle, margin: float) -> tuple[slice, slice]:
        size = self._blocked.shape[0]
        reach = math.hypot(wing.length, wing.width) / 2 + margin + 1
        left, right = (min(size, max(0, round(wing.x + side * reach))) for side in (-1, 1))
        top, bottom = (min(size, max(0, round(wing.y + side * reach))) for side in (-1, 1))
        return slice(top, bottom), slice(left, right)

    def _inside(self, wing: Rectangle, margin: float) -> Mask:
        rows, columns = self._window(wing, margin)
        dx = np.arange(columns.start, columns.stop)[None, :] + 0.5 - wing.x
        dy = np.arange(rows.start, rows.stop)[:, None] + 0.5 - wing.y
        cosine, sine = math.cos(wing.angle), math.sin(wing.angle)
        inside: Mask = (np.abs(dx * cosine + dy * sine) <= wing.length / 2 + margin) & (
            np.abs(dy * cosine - dx * sine) <= wing.width / 2 + margin
        )
        return inside


def place_buildings(
    rng: np.random.Generator, roads: tuple[Road, ...], *, blocked: Mask, settlement: Mask, scale: float
) -> tuple[tuple[Building, ...], Mask]:
    """Place buildings along both sides of the roads, densely in the settlement, here and there outside.

    Args:
        rng: Source of all choices.
        roads: Roads to build along.
        blocked: Where nothing may stand, (H, W).
        settlement: Where people live, (H, W).
        scale: Pixels per nominal pixel.

    Returns:
        The buildings, and the ground they stand on (H, W).
    """
    ground = _Ground(blocked)
    size = blocked.shape[0]
    buildings: list[Building] = list(_place_halls(rng, ground, settlement, roads, scale=scale))
    flat_town = rng.random() < 0.25
    density = float(rng.uniform(0.75, 1.0))
    for road in roads:
        for x, y, angle, outward in _frontage(rng, road, scale=scale):
            column, row = min(size - 1, max(0, int(x))), min(size - 1, max(0, int(y)))
            if not (-20 < x < size + 20 and -20 < y < size + 20):
                continue
            if rng.random() > (density if settlement[row, column] else 0.05):
                continue
            house = _house(rng, x, y, angle, outward=outward, flat_town=flat_town, scale=scale)
            if not ground.fits(house.wings, margin=1.5):
                continue
            ground.take(house.wings)
            buildings.append(house)
            if rng.random() < 0.35:
                shed = _shed(rng, house.wings[0], outward=outward, scale=scale)
                if ground.fits(shed.wings, margin=1):
                    ground.take(shed.wings)
                    buildings.append(shed)
    return tuple(buildings), ground.built


def _frontage(rng: np.random.Generator, road: Road, *, scale: float) -> Iterator[tuple[float, float, float, int]]:
    """Yield places (x, y, road angle, side) of houses on both sides of a road, in rows of lots."""
    steps = np.diff(road.points, axis=0)
    travelled = np.concatenate([[0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    for side in (-1, 1):
        setback = rng.uniform(9, 13) * scale
        position = rng.uniform(4, 14) * scale
        while position < travelled[-1]:
            segment = min(int(np.searchsorted(travelled, position)), len(steps) - 1)
            angle = math.atan2(steps[segment, 1], steps[segment, 0])
            away = road.width / 2 + setback + rng.normal(0, 0.8)
            x = np.interp(position, travelled, road.points[:, 0]) - side * away * math.sin(angle)
            y = np.interp(position, travelled, road.points[:, 1]) + side * away * math.cos(angle)
            yield float(x), float(y), angle, side
            position += rng.uniform(14, 22) * scale


def _house(
    rng: np.random.Generator, x: float, y: float, angle: float, *, outward: int, flat_town: bool, scale: float
) -> Building:
    length, width = rng.uniform(12, 21) * scale, rng.uniform(9.5, 14) * scale
    quarter_turn = math.pi / 2 if rng.random() < 0.25 else 0.0
    angle = angle + quarter_turn + float(rng.normal(0, 0.03))
    main = Rectangle(x, y, angle, length, width)
    wings = [main]
    if rng.random() < 0.25:
        end = main.points([float(rng.choice([-0.45, 0.45]))], [0.9 * outward])[0]
        wings.append(Rectangle(float(end[0]), float(end[1]), angle + math.pi / 2, width * 0.9, length * 0.45))
    shape = "flat" if flat_town else str(rng.choice(ROOF_SHAPES, p=[0.5, 0.35, 0.15]))
    return Building(tuple(wings), float(rng.uniform(4, 8)) * scale, shape)


def _shed(rng: np.random.Generator, house: Rectangle, *, outward: int, scale: float) -> Building:
    behind = rng.uniform(1.9, 2.8) * outward
    place = house.points([float(rng.uniform(-0.9, 0.9))], [behind])[0]
    length, width = rng.uniform(4, 7.5) * scale, rng.uniform(4, 6) * scale
    shed = Rectangle(float(place[0]), float(place[1]), house.angle, length, width)
    return Building((shed,), 2.5 * scale, "flat" if rng.random() < 0.5 else "gable")


def _place_halls(
    rng: np.random.Generator, ground: _Ground, settlement: Mask, roads: tuple[Road, ...], *, scale: float
) -> Iterator[Building]:
    """Yield a few large flat-roofed halls on free ground in the settlement, turned like the nearest road."""
    places = np.argwhere(settlement)
    if not places.size:
        return
    points = np.concatenate([road.points[:-1] for road in roads])
    directions = np.concatenate([np.diff(road.points, axis=0) for road in roads])
    for row, column in places[rng.integers(0, len(places), int(rng.integers(0, 12)))]:
        angle = _nearest_angle(points, directions, float(column), float(row))
        length, width = rng.uniform(26, 52) * scale, rng.uniform(18, 30) * scale
        hall = (Rectangle(float(column), float(row), angle, length, width),)
        if ground.fits(hall, margin=3):
            ground.take(hall)
            yield Building(hall, float(rng.uniform(6, 11)) * scale, "flat" if rng.random() < 0.7 else "gable")


def _nearest_angle(points: Points, directions: Points, x: float, y: float) -> float:
    nearest = int(np.argmin((points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2))
    return math.atan2(directions[nearest, 1], directions[nearest, 0])
