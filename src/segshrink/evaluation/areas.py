"""Areas of classes on the evaluated maps, corrected by the maps' errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.evaluation_records import AreaRecord
from segshrink.scores import error_adjusted_areas

# Numbers worked on at once: 8 MB of float64.
_ENTRIES_AT_ONCE = 1_000_000
_LEVEL, _RESAMPLES = 0.95, 1000


class MappedAreas:
    """Counts what each class covers on the maps of many scenes, and how these maps err where the truth is known.

    Attributes:
        mapped: (C,) pixels that the maps give each class, labeled or not.
    """

    def __init__(self, num_classes: int) -> None:
        self.mapped: NDArray[np.int64] = np.zeros(num_classes, np.int64)
        self._entries: list[NDArray[np.intp]] = []  # of a labeled scene's flat confusion matrix: places, and counts
        self._counts: list[NDArray[np.int64]] = []

    def update(self, prediction: NDArray[Any], matrix: NDArray[np.int64]) -> None:
        """Count one scene: its class map, any shape, and the confusion matrix (C, C), [true, mapped], of it."""
        counted = np.bincount(prediction.reshape(-1), minlength=self.mapped.size)
        self.mapped += counted[: self.mapped.size]  # pixels without data hold 255
        entries = np.flatnonzero(matrix)
        if entries.size:
            self._entries.append(entries)
            self._counts.append(matrix.reshape(-1)[entries])

    def areas(self, *, seed: int = 0) -> tuple[AreaRecord, ...]:
        """Return the areas of all classes.

        The corrected area is that of Olofsson et al. 2014. The interval is a percentile bootstrap over scenes (Efron
        1979) and not theirs, which takes neighboring pixels for independent. Without it where fewer than two scenes
        are labeled.
        """
        classes, scenes = self.mapped.size, len(self._entries)
        total = max(int(self.mapped.sum()), 1)
        if not scenes:
            return ()
        adjusted = error_adjusted_areas(self._weighted(np.ones((1, scenes), np.int64)), self.mapped)[0][0] / total
        low = high = np.full(classes, np.nan)
        if scenes > 1:
            rng = np.random.default_rng(seed)
            step = max(1, _ENTRIES_AT_ONCE // max(sum(map(len, self._entries)), classes**2))
            drawn = []
            for start in range(0, _RESAMPLES, step):
                weights = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=min(step, _RESAMPLES - start))
                drawn.append(error_adjusted_areas(self._weighted(weights), self.mapped)[0] / total)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a mapped class that is never labeled: all NaN
                low, high = np.nanquantile(np.concatenate(drawn), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
        values = zip(self.mapped / total, adjusted, low, high, strict=True)
        return tuple(AreaRecord(mapped=m, adjusted=a, low=lo, high=hi) for m, a, lo, hi in values)

    def _weighted(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sums (n, C, C) of the scenes' matrices with weights (n, scenes)."""
        classes = self.mapped.size
        scenes = np.repeat(np.arange(len(self._entries)), [len(entries) for entries in self._entries])
        entries, counts = np.concatenate(self._entries), np.concatenate(self._counts)
        order = np.argsort(entries, kind="stable")
        places, starts = np.unique(entries[order], return_index=True)
        sums = np.zeros((len(weights), classes**2), np.int64)
        sums[:, places] = np.add.reduceat(weights[:, scenes[order]] * counts[order], starts, axis=1)
        return sums.reshape(-1, classes, classes)
