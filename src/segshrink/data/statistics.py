"""Mean and spread of each band, for normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.data.store import SceneStore
from segshrink.errors import DataError
from segshrink.models import Normalization

_PIXELS_AT_ONCE = 1 << 18


def image_statistics(store: SceneStore) -> Normalization:
    """Measure mean and standard deviation of each band over all pixels of a store, in raw pixel units.

    Pixels that aren't finite are left out; the deviation of a constant band is given as 1. Sums of blocks are merged
    as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
    so that large values lose no precision.

    Raises:
        DataError: The store is empty, or a band has no finite pixel.
    """
    if len(store) == 0:
        raise DataError("can't measure image statistics without training images; check the split")
    count, mean, squares = (np.zeros(store.bands) for _ in range(3))
    for index in range(len(store)):
        image = store.image(index)
        rows = max(1, _PIXELS_AT_ONCE // image.shape[1])
        for start in range(0, len(image), rows):
            added, block_mean, block_squares = _moments(image[start : start + rows].reshape(-1, store.bands))
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


def _moments(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return count, mean and sum of squared deviations of each band of (n, bands) pixels."""
    values = pixels.astype(np.float64)
    # Matrix products: sums along the long axis of a narrow array are ten times slower.
    ones = np.ones(len(values))
    if np.issubdtype(pixels.dtype, np.integer):
        count = np.full(values.shape[1], float(len(values)))
        mean = ones @ values / count
        values -= mean
    else:
        finite = np.isfinite(values)
        count = ones @ finite
        mean = ones @ np.where(finite, values, 0) / np.maximum(count, 1)
        values = np.where(finite, values - mean, 0)
    return count, mean, np.diag(values.T @ values).copy()
