"""Curves, rectangles and supersampled drawing. Points are (x, y) in pixels, x to the right, y down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
# Drawings are made this many times larger: colours are averaged, labels taken at pixel centres.
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Frame:
    """A rotated coordinate system: ``along`` and ``across`` axes through ``origin``, turned by ``angle`` radians."""

    origin: tuple[float, float]
    angle: float

    def along_across(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return image coordinates as (along, across), shaped like the broadcast of ``x`` and ``y``."""
        cosine, sine = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        dx, dy = x - np.float32(self.origin[0]), y - np.float32(self.origin[1])
        return dx * cosine + dy * sine, dy * cosine - dx * sine

    def points(self, along: Points, across: Points) -> Points:
        """Return frame coordinates (n,), (n,) as image points (n, 2)."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x = self.origin[0] + along * cosine - across * sine
        y = self.origin[1] + along * sine + across * cosine
        return np.stack([x, y], axis=1)


@dataclass(frozen=True)
class Curve:
    """A line wandering about the ``along`` axis of a frame as a sum of sines."""

    frame: Frame
    amplitudes: tuple[float, ...]
    wavelengths: tuple[float, ...]
    phases: tuple[float, ...]

    @classmethod
    def random(cls, rng: np.random.Generator, frame: Frame, *, amplitude: float, wavelength: float) -> Curve:
        """Draw a curve with a main bend of ``amplitude`` every ``wavelength`` pixels and a smaller, shorter one."""
        strength = rng.uniform(0.4, 1.0) * amplitude
        bends = (strength, strength * rng.uniform(0.15, 0.35))
        lengths = (wavelength * rng.uniform(0.8, 1.3), wavelength * rng.uniform(0.35, 0.5))
        return cls(frame, bends, lengths, tuple(map(float, rng.uniform(0, 2 * math.pi, 2))))

    def offset(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far across the curve lies at each ``along``."""
        total = np.zeros_like(along)
        for amplitude, wavelength, phase in zip(self.amplitudes, self.wavelengths, self.phases, strict=True):
            total += amplitude * np.sin(along * (2 * math.pi / wavelength) + phase)
        return total

    def distance(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return about how far each pixel is from the curve, in pixels and never negative."""
        along, across = self.frame.along_across(x, y)
        offset = self.offset(along.astype(np.float64)).astype(np.float32)
        distance: NDArray[np.float32] = np.abs(across - offset)
        return distance

    def points(self, reach: float, *, step: float = 4.0) -> Points:
        """Return points (n, 2) along the curve from ``-reach`` to ``reach``."""
        along = np.arange(-reach, reach + step, step)
        return self.frame.points(along, self.offset(along))


@dataclass(frozen=True)
class Rectangle:
    """A rotated rectangle: ``length`` along ``angle``, ``width`` across."""

    x: float
    y: float
    angle: float
    length: float
    width: float

    def points(self, along: Sequence[float], across: Sequence[float]) -> Points:
        """Return the points (n, 2) at these fractions (-1 .. 1) of the half length and half width."""
        frame = Frame((self.x, self.y), self.angle)
        return frame.points(np.asarray(along) * self.length / 2, np.asarray(across) * self.width / 2)

    def corners(self) -> Points:
        """Return the four corners (4, 2) in drawing order."""
        return self.points([-1, 1, 1, -1], [-1, -1, 1, 1])

    def moved(self, dx: float, dy: float) -> Rectangle:
        """Return the rectangle shifted by (dx, dy)."""
        return Rectangle(self.x + dx, self.y + dy, self.angle, self.length, self.width)


class Canvas:
    """A Pillow drawing of a (size, size) scene, ``SUPERSAMPLING`` times larger, drawn in scene coordinates."""

    def __init__(self, size: int, mode: str, fill: int | tuple[int, ...] = 0) -> None:
        self.size = size
        self.image = Image.new(mode, (size * SUPERSAMPLING, size * SUPERSAMPLING), fill)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, fill: int | tuple[int, ...]) -> None:
        """Fill the polygon through ``points`` (n, 2)."""
        self._draw.polygon(self._scaled(points), fill=fill)

    def line(self, points: Points, width: float, fill: int | tuple[int, ...]) -> None:
        """Draw a line of ``width`` pixels with round ends through ``points`` (n >= 2, 2), which bend gently."""
        sideways = normals(points) * (width / 2)
        self.polygon(np.concatenate([points + sideways, (points - sideways)[::-1]]), fill)
        if width > 2:
            for x, y in self._scaled(points[[0, -1]]):
                self._draw.circle((x, y), width / 2 * SUPERSAMPLING, fill=fill)

    def averaged(self) -> NDArray[np.float32]:
        """Return the drawing at scene size, anti-aliased, scaled to 0 .. 1: (size, size[, bands])."""
        return np.asarray(self.image.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)

    def sampled(self) -> NDArray[np.uint8]:
        """Return the values at pixel centres: (size, size)."""
        middle = SUPERSAMPLING // 2
        return np.asarray(self.image)[middle::SUPERSAMPLING, middle::SUPERSAMPLING].copy()

    @staticmethod
    def _scaled(points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points * SUPERSAMPLING - 0.5).tolist()]


def normals(points: Points) -> Points:
    """Return the unit vectors (n, 2) across a line through ``points`` (n >= 2, 2)."""
    steps = np.gradient(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    return np.stack([-steps[:, 1], steps[:, 0]], axis=1) / np.maximum(lengths, 1e-9)[:, None]


def convex_hull(points: Points) -> Points:
    """Return the corners (m, 2) of the convex hull of ``points`` (n, 2), by Andrew's monotone chain."""
    ordered = sorted({(float(x), float(y)) for x, y in points})

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
