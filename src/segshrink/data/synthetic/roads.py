"""Road networks: curved main roads, bent grids of minor roads in settlements, lanes and dirt tracks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic.geometry import Canvas, Curve, Frame, Points
from segshrink.data.synthetic.noise import Surface, fractal_noise

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Road:
    """A road along ``points`` (n, 2), ``width`` pixels wide; main roads have lane marks."""

    points: Points
    width: float
    main: bool = False


@dataclass(frozen=True)
class Network:
    """All roads of a scene, the dirt tracks that only look like roads, and where people live (H, W)."""

    roads: tuple[Road, ...]
    tracks: tuple[Road, ...]
    settlement: Mask


def plan_roads(
    rng: np.random.Generator,
    size: int,
    x: Surface,
    y: Surface,
    *,
    water: Surface,
    scale: float,
    settlement_share: float,
) -> Network:
    """Plan the roads of a scene and its settlement, which lies by the main road.

    Args:
        rng: Source of all choices.
        size: Side of the scene in pixels.
        x: Pixel centres, (1, size).
        y: Pixel centres, (size, 1).
        water: Level above 0 in the water, (size, size); only main roads cross it.
        scale: Pixels per nominal pixel.
        settlement_share: Share of the scene that is settled.
    """
    reach = size * 0.8 + 40
    # Builders avoid water: of a few ways the driest is taken.
    ways = [_crossing_curve(rng, size, float(rng.uniform(0, math.pi)), scale) for _ in range(3)]
    curves = [min(ways, key=lambda way: _wet_share(way, water))]
    if rng.random() < 0.3:
        turn = curves[0].frame.angle + math.pi / 2 + float(rng.uniform(-0.5, 0.5))
        curves.append(_crossing_curve(rng, size, turn, scale))
    roads = [Road(curve.points(reach), float(rng.uniform(7.5, 11)) * scale, main=True) for curve in curves]
    distance = np.minimum.reduce([curve.distance(x, y) for curve in curves])
    level = fractal_noise(rng, size, 180 * scale, octaves=3) - distance / np.float32(110 * scale)
    settlement = (level >= np.quantile(level, 1 - settlement_share)) & (water < -8)
    roads += _street_grid(rng, curves[0], settlement, distance, scale=scale)
    if rng.random() < 0.45:
        lane = _crossing_curve(rng, size, float(rng.uniform(0, math.pi)), scale)
        roads += _inside_runs(lane.points(reach), water < -3, width=float(rng.uniform(4, 6)) * scale)
    tracks: list[Road] = []
    for _ in range(rng.integers(0, 3)):
        track = _crossing_curve(rng, size, float(rng.uniform(0, math.pi)), scale)
        tracks += _inside_runs(track.points(reach), (water < -3) & ~settlement, width=float(rng.uniform(2.5, 4.5)))
    return Network(tuple(roads), tuple(tracks), settlement)


def draw_roads(size: int, roads: tuple[Road, ...]) -> NDArray[np.uint8]:
    """Return (size, size): 1 on a road, else 0."""
    canvas = Canvas(size, "L")
    for road in roads:
        canvas.line(road.points, road.width, 1)
    return canvas.sampled()


def _crossing_curve(rng: np.random.Generator, size: int, angle: float, scale: float) -> Curve:
    origin = (size * float(rng.uniform(0.25, 0.75)), size * float(rng.uniform(0.25, 0.75)))
    return Curve.random(rng, Frame(origin, angle), amplitude=38 * scale, wavelength=420 * scale)


def _wet_share(curve: Curve, water: Surface) -> float:
    """Return the share of the curve's points, those on the scene, that lie in the water."""
    points = curve.points(water.shape[0] * 0.7).astype(np.int64)
    points = points[((points >= 0) & (points < water.shape[0])).all(axis=1)]
    return float((water[points[:, 1], points[:, 0]] > 0).sum() / max(1, len(points)))


def _street_grid(
    rng: np.random.Generator, main: Curve, settlement: Mask, main_distance: Surface, *, scale: float
) -> list[Road]:
    """Lay streets along and across the main road; they bend together and end where the settlement ends."""
    size = settlement.shape[0]
    reach = size * 0.8 + 40
    turn = float(rng.choice([0.0, 0.0, rng.uniform(-0.6, 0.6)]))
    frame = Frame(main.frame.origin, main.frame.angle + turn)
    bend = Curve.random(rng, frame, amplitude=12 * scale, wavelength=300 * scale)
    width = float(rng.uniform(4, 5.6)) * scale
    spacing = float(rng.uniform(58, 80)) * scale
    clear_of_main = settlement & (main_distance > 16 * scale)
    roads: list[Road] = []
    steps = np.arange(-reach, reach, 4.0)
    for across in np.arange(-reach, reach, spacing) + rng.uniform(0, spacing):
        shift = float(across + rng.normal(0, 0.06) * spacing)
        points = frame.points(steps, shift + bend.offset(steps))
        roads += _inside_runs(points, clear_of_main, width=width * float(rng.uniform(0.85, 1.1)))
    block = spacing * float(rng.uniform(1.2, 2.0))
    for along in np.arange(-reach, reach, block) + rng.uniform(0, block):
        shifts = np.full_like(steps, along + rng.normal(0, 0.06) * block)
        points = frame.points(shifts, steps + bend.offset(shifts))
        roads += _inside_runs(points, settlement, width=width)
    return [road for road in roads if rng.random() > 0.08]


def _inside_runs(points: Points, allowed: Mask, *, width: float) -> list[Road]:
    """Cut a line into the runs that lie on allowed ground; off the scene the nearest edge pixel decides."""
    size = allowed.shape[0]
    cells = np.clip(points.astype(np.int64), 0, size - 1)
    inside = allowed[cells[:, 1], cells[:, 0]]
    borders = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    runs = zip(borders[::2], borders[1::2], strict=True)
    return [Road(points[start:end], width) for start, end in runs if end - start >= 8]
