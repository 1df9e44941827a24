"""Mean and spread of each band, for normalisation."""

from __future__ import annotations

import numpy as np

from segshrink.data.store import SceneStore
from segshrink.errors import DataError
from segshrink.models import Normalization

_ROWS_AT_ONCE = 256


def image_statistics(store: SceneStore) -> Normalization:
    """Measure mean and standard deviation of each band over all pixels of a store, in raw pixel units.

    Pixels that aren't finite are left out; the deviation of a constant band is given as 1. Sums are merged in pairs
    (Chan, Golub and LeVeque 1979), so large values lose no precision.

    Raises:
        DataError: The store is empty, or a band has no finite pixel.
    """
    if len(store) == 0:
        raise DataError("can't measure image statistics without training images; check the split")
    count = np.zeros(store.bands)
    mean = np.zeros(store.bands)
    squares = np.zeros(store.bands)
    for index in range(len(store)):
        image = store.image(index)
        for start in range(0, len(image), _ROWS_AT_ONCE):
            values = image[start : start + _ROWS_AT_ONCE].reshape(-1, store.bands).astype(np.float64)
            finite = np.isfinite(values)
            values[~finite] = 0
            added = finite.sum(axis=0)
            block_mean = values.sum(axis=0) / np.maximum(added, 1)
            deviations = np.where(finite, values - block_mean, 0)
            block_squares = np.einsum("nb,nb->b", deviations, deviations)
            total = np.maximum(count + added, 1)
            shift = block_mean - mean
            squares += block_squares + shift**2 * count * added / total
            mean += shift * added / total
            count += added
    if (count == 0).any():
        raise DataError(f"band {int(np.argmin(count)) + 1} has no finite pixel in the training images; leave it out")
    deviation = np.sqrt(squares / count)
    deviation[deviation == 0] = 1.0
    return Normalization(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))
