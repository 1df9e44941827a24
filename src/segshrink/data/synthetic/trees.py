"""Tree crowns: domes on a jittered grid, dense in woods, scattered elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.data.synthetic.noise import Surface

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Crowns:
    """The canopy seen from above; every array is (H, W) float32 and 0 where no crown is.

    ``cover`` is the crown's share of the pixel (0 .. 1), ``east`` and ``south`` the slope's direction (-1 .. 1, the
    dome's normal), ``tint`` a number per tree in 0 .. 1.
    """

    cover: Surface
    east: Surface
    south: Surface
    tint: Surface


def grow_crowns(
    rng: np.random.Generator, density: Surface, x: Surface, y: Surface, *, scale: float, obstacles: Mask
) -> Crowns:
    """Stand trees where ``density`` (H, W), the chance per cell, has them, none with its stem on an obstacle."""
    size = density.shape[0]
    cell = 6.5 * scale
    count = math.ceil(size / cell) + 2
    # Cell (i, j) of the arrays lies at grid position (i - 1, j - 1): one ring of cells outside the scene.
    columns, rows = np.meshgrid(np.arange(count) - 1, np.arange(count) - 1)
    stem_x = ((columns + rng.uniform(0.1, 0.9, columns.shape)) * cell).astype(np.float32)
    stem_y = ((rows + rng.uniform(0.1, 0.9, rows.shape)) * cell).astype(np.float32)
    at = (np.clip(stem_y.astype(int), 0, size - 1), np.clip(stem_x.astype(int), 0, size - 1))
    stands = (rng.random(columns.shape) < density[at]) & ~obstacles[at]
    radius = (rng.triangular(0.35, 0.75, 0.95, columns.shape) * cell * stands).astype(np.float32)
    tint = rng.random(columns.shape, dtype=np.float32)

    near = np.zeros_like(stands)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near |= np.roll(stands, (down, right), (0, 1))
    pixel_column = (x[0] / cell).astype(np.int32) + 1
    pixel_row = (y[:, 0] / cell).astype(np.int32) + 1
    at_row, at_column = np.nonzero(near[pixel_row[:, None], pixel_column[None, :]])
    cells = (pixel_row[at_row], pixel_column[at_column])
    values = _highest_dome(x[0][at_column], y[:, 0][at_row], cells, stem_x, stem_y, radius, tint)
    arrays = []
    for value in values:
        array = np.zeros((size, size), np.float32)
        array[at_row, at_column] = value
        arrays.append(array)
    return Crowns(*arrays)


def _highest_dome(
    x: Surface,
    y: Surface,
    cells: tuple[NDArray[np.int32], NDArray[np.int32]],
    stem_x: Surface,
    stem_y: Surface,
    radius: Surface,
    tint: Surface,
) -> NDArray[np.float32]:
    """Return cover, east, south and tint (4, n) of the highest dome over each of the n pixels."""
    top = np.zeros_like(x)
    best = np.zeros(x.shape, np.int32)
    width = stem_x.shape[1]
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            flat = (cells[0] + down) * width + (cells[1] + right)
            reach = radius.ravel()[flat]
            dx, dy = x - stem_x.ravel()[flat], y - stem_y.ravel()[flat]
            # Big crowns overtop small ones.
            height = reach * reach - dx * dx - dy * dy
            higher = height > top
            top = np.where(higher, height, top)
            best = np.where(higher, flat, best)
    there = top > 0
    reach = np.maximum(radius.ravel()[best], np.float32(1))
    east = np.where(there, (x - stem_x.ravel()[best]) / reach, 0)
    south = np.where(there, (y - stem_y.ravel()[best]) / reach, 0)
    cover = np.clip(top / reach, 0, 1)
    return np.stack([cover, east, south, np.where(there, tint.ravel()[best], 0)]).astype(np.float32)
