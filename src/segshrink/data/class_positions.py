"""Where the pixels of each class are, so that crops can be centered on rare ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX

_ROWS_AT_ONCE = 1024
_PIXELS_PER_SCENE = 2048


@dataclass(frozen=True)
class _ClassPixels:
    """Sampled pixels of one class: for scene ``scenes[i]`` the flat indices ``pixels[i]``."""

    scenes: tuple[int, ...]
    cumulative: NDArray[np.float64]
    pixels: tuple[NDArray[np.int64], ...]


class ClassPositions:
    """An index of pixels by class, from which every pixel of a class has the same chance.

    Of each scene and class at most 2048 pixels are kept, drawn with equal chance; scenes are then drawn by how many
    pixels of the class they hold.

    Args:
        masks: (H, W) uint8 class indices of the scenes, in order; read twice, in blocks of rows.
        seed: Where the choice of pixels comes from.
    """

    def __init__(self, masks: Iterable[NDArray[np.uint8]], *, seed: int) -> None:
        positions: dict[int, list[tuple[int, int, NDArray[np.int64]]]] = {}
        self._widths: list[int] = []
        for scene, mask in enumerate(masks):
            self._widths.append(mask.shape[1])
            for label, count, pixels in _sampled(mask, np.random.default_rng((seed, scene))):
                positions.setdefault(label, []).append((scene, count, pixels))
        self.classes = tuple(sorted(positions))
        self._pixels = {
            label: _ClassPixels(
                scenes=tuple(scene for scene, _, _ in entries),
                cumulative=np.cumsum([count for _, count, _ in entries], dtype=np.float64),
                pixels=tuple(pixels for _, _, pixels in entries),
            )
            for label, entries in positions.items()
        }

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw a class with equal chance among those that occur, then a pixel of it: (scene, row, col).

        Raises:
            ValueError: No pixel has a class.
        """
        if not self.classes:
            raise ValueError("no pixel of the masks has a class")
        label_draw, scene_draw, pixel_draw = rng.random(3).tolist()
        chosen = self._pixels[self.classes[int(label_draw * len(self.classes))]]
        entry = int(np.searchsorted(chosen.cumulative, scene_draw * chosen.cumulative[-1], side="right"))
        pixels, scene = chosen.pixels[entry], chosen.scenes[entry]
        row, col = divmod(int(pixels[int(pixel_draw * len(pixels))]), self._widths[scene])
        return scene, row, col


def _sampled(mask: NDArray[np.uint8], rng: np.random.Generator) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Return (class, its pixels in the mask, flat indices of some of them) for each class in a mask."""
    starts = range(0, mask.shape[0], _ROWS_AT_ONCE)
    counts = [_counts(mask[start : start + _ROWS_AT_ONCE]) for start in starts]
    totals = np.sum(counts, axis=0)
    labels = [label for label in np.flatnonzero(totals).tolist() if label != IGNORE_INDEX]
    # Which of the class's pixels are kept, by rank in reading order.
    ranks = {label: _ranks(int(totals[label]), rng) for label in labels}
    kept: dict[int, list[NDArray[np.int64]]] = {label: [] for label in labels}
    class_counts = dict.fromkeys(labels, 0)
    for start, count in zip(starts, counts, strict=True):
        block = np.ascontiguousarray(mask[start : start + _ROWS_AT_ONCE]).ravel()
        for label in labels:
            before, after = class_counts[label], class_counts[label] + int(count[label])
            low, high = np.searchsorted(ranks[label], (before, after))
            if low < high:
                places = np.flatnonzero(block == label)[ranks[label][low:high] - before]
                kept[label].append(places + start * mask.shape[1])
            class_counts[label] = after
    return [(label, int(totals[label]), np.concatenate(kept[label])) for label in labels]


def _ranks(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count <= _PIXELS_PER_SCENE:
        return np.arange(count, dtype=np.int64)
    return np.sort(rng.integers(0, count, _PIXELS_PER_SCENE))


def _counts(block: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(block.ravel(), minlength=256)
