"""Recognizing images that show the same: by content, and by the direction of their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The image is looked at in TILES × TILES tiles of SIDE × SIDE cells.
_TILES = 3
_SIDE = 9

# Differences between neighboring cells below this share of their tile's spread have no direction: they are noise.
_FLAT = 0.1

# Up to this distance images are near-duplicates. Measured on the Pascal VOC and Dubai images: copies with JPEG quality
# 30, 0.6 times the brightness, half the contrast, half the size or noise of 10 gray levels lie below 0.13, with gamma 2
# below 0.14; all 466,095 pairs of different VOC images lie above 0.23.
NEAR = 0.18

_ROWS_AT_ONCE = 1024
# So many pairs for each picture are found at most, lest a film of one place fill the memory.
_MOST_PAIRS = 10


@dataclass(frozen=True)
class Match:
    """Two images that show the same.

    Attributes:
        first: Position in the first sequence of fingerprints.
        second: Position in the second sequence.
        distance: Share of gradients with another direction: 0 the same picture, 0.5 unrelated, 1 the negative.
    """

    first: int
    second: int
    distance: float


def fingerprint(image: NDArray[Any]) -> NDArray[np.int8]:
    """Reduce an image to the directions of its gradients, a difference hash of each of 3 × 3 tiles.

    After N. Krawetz, "Kind of Like That" (2013), with a third value for gradients that are too small to have a
    direction. Brightness, contrast, compression and size hardly change it.

    Args:
        image: (H, W, bands) raw pixel values of any type.

    Returns:
        (1296,) values -1, 0 or 1; all 0 for a picture of one color.
    """
    cells = _reduced(image, _TILES * _SIDE)
    tiles = cells.reshape(_TILES, _SIDE, _TILES, _SIDE).transpose(0, 2, 1, 3).reshape(-1, _SIDE, _SIDE)
    # Rounding noise in a tile of one color must not look like gradients.
    floor = max(1e-4 * float(cells.std()), 1e-5 * float(np.abs(cells).max()))
    directions = []
    for axis in (1, 2):
        differences = np.diff(tiles, axis=axis).reshape(len(tiles), -1)
        spread = np.maximum(differences.std(axis=1, keepdims=True), floor)
        directions.append(np.where(np.abs(differences) > _FLAT * spread, np.sign(differences), 0).astype(np.int8))
    return np.concatenate(directions, axis=1).reshape(-1)


def near_matches(
    first: Sequence[NDArray[np.int8]], second: Sequence[NDArray[np.int8]], *, limit: float = NEAR
) -> list[Match]:
    """Find the pairs of fingerprints that are at most ``limit`` apart, the closest first.

    Pictures of one color match nothing. Of very many pairs the closest are found, ten for each picture.
    """
    most = _MOST_PAIRS * (len(first) + len(second))
    matches = np.zeros((3, 0), np.float32)
    for top in range(0, len(first), _ROWS_AT_ONCE):
        ours = _normalized(first[top : top + _ROWS_AT_ONCE])
        for left in range(0, len(second), _ROWS_AT_ONCE):
            distances = (1 - ours @ _normalized(second[left : left + _ROWS_AT_ONCE]).T) / 2
            rows, cols = np.nonzero(distances <= limit)
            matches = np.hstack([matches, [distances[rows, cols].clip(0).round(6), top + rows, left + cols]])
            matches = matches[:, np.lexsort(matches[::-1])[:most]]
    return [Match(int(row), int(col), round(distance, 6)) for distance, row, col in matches.T.tolist()]


def _normalized(fingerprints: Sequence[NDArray[np.int8]]) -> NDArray[np.float32]:
    rows = np.stack(fingerprints).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    normalized: NDArray[np.float32] = rows / np.maximum(lengths, 1)
    return normalized


def _reduced(image: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Average an image's bands and areas down to (side, side) cells."""
    total = np.zeros((side, side))
    for band in range(image.shape[2]):
        plane = image[:, :, band]
        if plane.dtype != np.uint8:
            plane = plane.astype(np.float32)
            plane[~np.isfinite(plane)] = 0
        small = Image.fromarray(np.ascontiguousarray(plane)).resize((side, side), Image.Resampling.BOX)
        total += np.asarray(small, dtype=np.float64)
    mean: NDArray[np.float64] = total / image.shape[2]
    return mean
