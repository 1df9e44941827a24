"""Drawn things: road surfaces and lane marks, roofs with ridges, cars, and the shadows of buildings."""

from __future__ import annotations

import math

import numpy as np

from segshrink.data.synthetic.geometry import Canvas, Points, Rectangle, convex_hull, normals
from segshrink.data.synthetic.ground import Picture, cover
from segshrink.data.synthetic.layout import Layout
from segshrink.data.synthetic.noise import Surface, smooth_noise
from segshrink.data.synthetic.palette import Color, Palette
from segshrink.data.synthetic.roads import Road

_CARS = ((235, 235, 235), (40, 42, 46), (150, 152, 156), (150, 40, 36), (52, 74, 120), (196, 190, 176))


def paint_tracks(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint dirt tracks, soil-coloured and faint."""
    if layout.tracks:
        canvas = Canvas(layout.size, "L")
        for track in layout.tracks:
            canvas.line(track.points, track.width, 255)
        share = canvas.averaged() * np.float32(rng.uniform(0.5, 0.9))
        cover(picture, palette.soil * np.float32(1.08), share * (layout.parcels.index < 0))


def paint_roads(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint verges, asphalt, lane marks and cars."""
    canvas = Canvas(layout.size, "RGBA")
    verge = _bytes(palette.soil * np.float32(0.6) + palette.asphalt * np.float32(0.45))
    if rng.random() < 0.6:
        for road in layout.roads:
            canvas.line(road.points, road.width + 2.4, (*verge, 150))
    shade = np.exp(rng.normal(0, 0.07, len(layout.roads)))
    ranked = sorted(range(len(layout.roads)), key=lambda number: layout.roads[number].main)
    for number in ranked:
        road = layout.roads[number]
        canvas.line(road.points, road.width, (*_bytes(palette.asphalt * shade[number]), 255))
    marked = rng.random() < 0.75
    for road in layout.roads:
        if road.main and marked:
            _mark_lanes(canvas, road, layout.scale)
    for road in layout.roads:
        _park_cars(rng, canvas, road, layout.scale)
    drawn = canvas.averaged()
    wear = 1 + 0.04 * smooth_noise(rng, layout.size, 1.8) + 0.05 * smooth_noise(rng, layout.size, 30)
    cover(picture, drawn[..., :3] * wear[..., None].astype(np.float32), drawn[..., 3])


def _mark_lanes(canvas: Canvas, road: Road, scale: float) -> None:
    """Draw a dashed middle line and edge lines."""
    for start in range(0, len(road.points) - 1, 3):
        canvas.line(road.points[start : start + 2], 0.7 * scale, (232, 230, 220, 255))
    sideways = normals(road.points)
    for side in (-1, 1):
        canvas.line(road.points + sideways * (side * (road.width / 2 - 1)), 0.5 * scale, (214, 212, 204, 255))


def _park_cars(rng: np.random.Generator, canvas: Canvas, road: Road, scale: float) -> None:
    count = rng.poisson(len(road.points) * (0.05 if road.main else 0.03))
    for number in rng.integers(0, len(road.points) - 1, count):
        dx, dy = road.points[number + 1] - road.points[number]
        angle, lane = math.atan2(dy, dx), float(rng.choice([-1, 1])) * road.width * 0.24
        x, y = road.points[number] + np.array([-math.sin(angle), math.cos(angle)]) * lane
        car = Rectangle(float(x), float(y), angle, 5.2 * scale, 2.4 * scale)
        color = _CARS[rng.integers(len(_CARS))]
        canvas.polygon(car.moved(0.6, 0.6).corners(), (30, 30, 34, 160))
        canvas.polygon(car.corners(), (*color, 255))
        canvas.polygon(car.points([-0.1, 0.4, 0.4, -0.1], [-0.7, -0.7, 0.7, 0.7]), (40, 46, 54, 255))


def building_shadow(layout: Layout, palette: Palette) -> Surface:
    """Return the share (H, W) of sunlight that buildings take from what lies beside them."""
    canvas = Canvas(layout.size, "L")
    for building in layout.buildings:
        fall = np.array(palette.shadow(building.height))
        for wing in building.wings:
            corners = wing.corners()
            canvas.polygon(convex_hull(np.concatenate([corners, corners + fall])), 255)
    return canvas.averaged()


def paint_roofs(rng: np.random.Generator, picture: Picture, layout: Layout, palette: Palette) -> None:
    """Paint the roofs, each face as bright as it is turned to the sun."""
    canvas = Canvas(layout.size, "RGBA")
    for building in layout.buildings:
        color = palette.roofs[rng.choice(len(palette.roofs), p=palette.roof_chances)]
        color = color * np.float32(math.exp(rng.normal(0, 0.1)))
        steepness = float(rng.uniform(0.12, 0.34))
        for wing in building.wings[::-1]:
            if building.roof == "flat":
                _draw_flat_roof(rng, canvas, wing, color)
            else:
                _draw_pitched_roof(canvas, wing, color, palette, steepness, hip=building.roof == "hip")
        if building.roof != "flat" and rng.random() < 0.1:
            _draw_panels(canvas, building.wings[0])
    drawn = canvas.averaged()
    wear = 1 + 0.04 * smooth_noise(rng, layout.size, 1.6) + 0.04 * smooth_noise(rng, layout.size, 9)
    cover(picture, drawn[..., :3] * wear[..., None].astype(np.float32), drawn[..., 3])


def _draw_pitched_roof(
    canvas: Canvas, wing: Rectangle, color: Color, palette: Palette, steepness: float, *, hip: bool
) -> None:
    ends = max(0.0, 1 - wing.width / wing.length) if hip else 1.0
    left, right = -ends, ends
    faces: list[tuple[Points, float]] = [
        (wing.points([-1, 1, right, left], [-1, -1, 0, 0]), -math.pi / 2),
        (wing.points([-1, 1, right, left], [1, 1, 0, 0]), math.pi / 2),
    ]
    if hip:
        faces.append((wing.points([-1, left, -1], [-1, 0, 1]), math.pi))
        faces.append((wing.points([1, right, 1], [-1, 0, 1]), 0.0))
    for points, direction in faces:
        facing = math.cos(wing.angle + direction) * palette.sun[0] + math.sin(wing.angle + direction) * palette.sun[1]
        canvas.polygon(points, (*_bytes(color * np.float32(1 + steepness * facing)), 255))
    canvas.line(wing.points([left, right], [0, 0]), 0.5, (*_bytes(color * np.float32(1.18)), 255))


def _draw_flat_roof(rng: np.random.Generator, canvas: Canvas, wing: Rectangle, color: Color) -> None:
    """Draw a parapet, the roof inside it and a few boxes."""
    grey = (color + color.mean()) / 2
    canvas.polygon(wing.corners(), (*_bytes(grey * np.float32(1.12)), 255))
    inset = np.array([1 - 2 / wing.length, 1 - 2 / wing.width])
    canvas.polygon(
        wing.points(inset[0] * np.array([-1, 1, 1, -1]), inset[1] * np.array([-1, -1, 1, 1])), (*_bytes(grey), 255)
    )
    for _ in range(rng.poisson(wing.length * wing.width / 260)):
        x, y = wing.points([float(rng.uniform(-0.75, 0.75))], [float(rng.uniform(-0.7, 0.7))])[0]
        box = Rectangle(float(x), float(y), wing.angle, float(rng.uniform(1.5, 4)), float(rng.uniform(1.5, 3)))
        canvas.polygon(box.moved(0.5, 0.5).corners(), (*_bytes(grey * np.float32(0.6)), 255))
        canvas.polygon(box.corners(), (*_bytes(grey * np.float32(rng.uniform(0.85, 1.3))), 255))


def _draw_panels(canvas: Canvas, wing: Rectangle) -> None:
    canvas.polygon(wing.points([-0.6, 0.5, 0.5, -0.6], [0.2, 0.2, 0.75, 0.75]), (34, 44, 66, 255))


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(color * 255, 0, 255))
    return red, green, blue
