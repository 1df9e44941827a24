"""What the images of a store are like: mean and spread of each band for normalization, and all that tells misuse."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.data.store import SceneStore
from segshrink.errors import DataError
from segshrink.image_distribution import ImageDistribution
from segshrink.imagery.image_features import ImageSample, image_distribution
from segshrink.model_description import Normalization
from segshrink.tiling import grid

_PIXELS_AT_ONCE = 1 << 18
# Images that are looked at: of fewer than the least, parts stand for images, of at least so many pixels a side; and
# how many samples it takes to know their spread.
_FEWEST_IMAGES, _MOST_IMAGES, _SMALLEST_PART, _FEWEST_SAMPLES = 16, 96, 128, 8
# Quantiles that stand for the darkest and the brightest pixel, where it isn't a byte.
_DARKEST, _BRIGHTEST = 0.001, 0.999


def image_statistics(store: SceneStore) -> Normalization:
    """Measure mean and standard deviation of each band over all pixels of a store, in raw pixel units.

    Pixels without a value are left out; the deviation of a constant band is given as 1. Sums of blocks are merged
    as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
    so that large values lose no precision.

    Raises:
        DataError: The store is empty, or no pixel has a value.
    """
    if len(store) == 0:
        raise DataError("can't measure image statistics without training images; check the split")
    count, mean, squares = 0, np.zeros(store.bands), np.zeros(store.bands)
    for index in range(len(store)):
        image, valid = store.image(index), store.valid(index)
        rows = max(1, _PIXELS_AT_ONCE // image.shape[1])
        for start in range(0, len(image), rows):
            block = image[start : start + rows]
            pixels = block.reshape(-1, store.bands) if valid is None else block[valid[start : start + rows]]
            if not len(pixels):
                continue
            added, block_mean, block_squares = _moments(pixels)
            total = count + added
            shift = block_mean - mean
            squares += block_squares + shift**2 * count * added / total
            mean += shift * added / total
            count += added
    if count == 0:
        raise DataError("no pixel of the training images has a value: all are no-data or NaN; choose other images")
    deviation = np.sqrt(squares / count)
    deviation[deviation == 0] = 1.0
    return Normalization(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))


def training_distribution(stores: Sequence[SceneStore]) -> ImageDistribution | None:
    """Measure what the images of some stores look like, in at most 96 of them; None where too little can be seen.

    Where there are few, parts of them count as images, so that their spread is known. Stores that hold images at a
    working size tell nothing of scenes, which come at their own.
    """
    images = [(store, index) for store in stores if store.resize is None for index in range(len(store))]
    chosen = [images[place] for place in np.linspace(0, len(images) - 1, min(_MOST_IMAGES, len(images))).astype(int)]
    parts = math.ceil(math.sqrt(_FEWEST_IMAGES / max(1, len(chosen))))
    samples = [sample for store, index in chosen for sample in _samples(store, index, parts)]
    samples = [sample for sample in samples if sample.usable]
    if len(samples) < _FEWEST_SAMPLES:
        return None
    low, high = 0.0, 255.0
    if chosen[0][0].dtype != np.uint8:
        low, high = np.quantile(np.concatenate([sample.points for sample in samples]), (_DARKEST, _BRIGHTEST)).tolist()
    if low == high:
        return None
    return image_distribution(samples, low=low, high=high)


def _samples(store: SceneStore, index: int, parts: int) -> list[ImageSample]:
    """Return samples of an image, or of at most parts × parts parts of it."""
    image, valid = store.image(index), store.valid(index)
    height, width = image.shape[:2]
    tall, wide = (-(-length // min(parts, max(1, length // _SMALLEST_PART))) for length in (height, width))
    return [
        ImageSample.of(image[window.slices], None if valid is None else valid[window.slices])
        for window in grid(height, width, tile=(tall, wide), overlap=0)
    ]


def absent_classes(store: SceneStore, *, allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Return the classes that no mask of a store holds, but for those that are allowed to be absent.

    Masks are read until all classes are found.
    """
    missing = {index for index, name in enumerate(store.classes.names) if name not in allowed}
    for number, sample in enumerate(store.samples):
        if not missing:
            break
        if sample.mask is not None:
            counts = np.bincount(store.mask(number).reshape(-1), minlength=256)
            missing -= set(np.flatnonzero(counts).tolist())
    labeled = any(sample.mask is not None for sample in store.samples)
    return tuple(store.classes.names[index] for index in sorted(missing)) if labeled else ()


def _moments(pixels: NDArray[Any]) -> tuple[int, NDArray[Any], NDArray[Any]]:
    """Return count, mean and sum of squared deviations of each band of (n, bands) pixels."""
    values = pixels.astype(np.float64)
    # Matrix products: sums along the long axis of a narrow array are ten times slower.
    mean = np.ones(len(values)) @ values / len(values)
    values -= mean
    return len(values), mean, np.diag(values.T @ values).copy()
