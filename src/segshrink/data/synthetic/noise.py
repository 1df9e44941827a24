"""Smooth random surfaces: the raw material of every texture and outline in a synthetic scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Surface = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, size: int, wavelength: float) -> Surface:
    """Return (size, size) noise of mean 0 and deviation about 1 that varies over ``wavelength`` pixels (>= 1)."""
    cells = size / wavelength
    count = math.ceil(cells) + 5
    lattice = Image.fromarray(rng.standard_normal((count, count), dtype=np.float32))
    left, top = rng.uniform(2, 3, 2)
    resized = lattice.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + cells, top + cells))
    return np.asarray(resized) * np.float32(1.25)


def fractal_noise(rng: np.random.Generator, size: int, wavelength: float, *, octaves: int = 4) -> Surface:
    """Return (size, size) noise of deviation about 1: halving wavelengths from ``wavelength``, halving amplitudes."""
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        if octave and wavelength / 2**octave < 1.5:
            break
        total += smooth_noise(rng, size, wavelength / 2**octave) * np.float32(0.5**octave)
        power += 0.25**octave
    return total / np.float32(math.sqrt(power))


def grow(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return ``mask`` (H, W) grown by ``distance`` pixels in an octagon-like shape."""
    grown = mask
    for step in range(distance):
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        if step % 2:
            wider[1:, 1:] |= grown[:-1, :-1]
            wider[:-1, :-1] |= grown[1:, 1:]
            wider[1:, :-1] |= grown[:-1, 1:]
            wider[:-1, 1:] |= grown[1:, :-1]
        grown = wider
    return grown


def without_slivers(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return ``mask`` (H, W) without the parts narrower than about twice ``distance`` pixels."""
    return mask & grow(~grow(~mask, distance), distance + 1)


def shifted(surface: Surface, columns: float, rows: float) -> Surface:
    """Return ``surface`` (H, W) moved right by ``columns`` and down by ``rows`` whole pixels; what enters is 0."""
    height, width = surface.shape
    right, down = max(-width, min(width, round(columns))), max(-height, min(height, round(rows)))
    moved = np.zeros_like(surface)
    source = surface[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return moved
