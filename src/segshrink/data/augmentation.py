"""Random changes of brightness, contrast, band gains and noise, for any number of bands and any data type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.config import Augmentation

# Values looked at in each image to find the data's range.
_RANGE_SAMPLES = 65536

# Gaussian numbers kept (8 MB a process); half of them is a crop of 512 x 512 pixels and 4 bands.
_NOISE_VALUES = 1 << 21


@dataclass(frozen=True)
class ValueRange:
    """What values images of a data set can have.

    Attributes:
        low: Smallest value that may come out of a change.
        high: Largest value.
        span: How far the data's own values spread; noise is measured in it. 12-bit values stored as uint16 have a
            span of 4095, though 65535 is possible.
    """

    low: float
    high: float
    span: float


def value_range(images: Iterable[NDArray[Any]]) -> ValueRange:
    """Find the range of some images of one data type: the type's for uint8, else measured on a grid of pixels.

    Args:
        images: (H, W, bands) arrays. Values that aren't finite are left out.
    """
    low, high = np.inf, -np.inf
    limits: tuple[float, float] | None = None
    for image in images:
        if image.dtype == np.uint8:
            return ValueRange(0.0, 255.0, 255.0)
        if np.issubdtype(image.dtype, np.integer):
            limits = (float(np.iinfo(image.dtype).min), float(np.iinfo(image.dtype).max))
        step = max(1, int((image.size / _RANGE_SAMPLES) ** 0.5))
        values = image[::step, ::step]
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:
        low, high = 0.0, 1.0
    return ValueRange(*(limits or (low, high)), span=high - low)


def photometric(
    image: NDArray[Any], rng: np.random.Generator, *, settings: Augmentation, limits: ValueRange
) -> NDArray[Any]:
    """Change brightness, contrast, the gain of each band, and add Gaussian noise.

    Contrast stretches each band around its mean in this image; brightness multiplies all bands, gain each band by a
    factor of its own. The noise's standard deviation is drawn between 0 and ``settings.noise`` of the span; its
    values are a random stretch of two million Gaussian numbers drawn once, which costs a tenth of drawing new ones.

    Args:
        image: (H, W, bands) raw pixel values, C-contiguous.
        rng: Where all random numbers come from.
        settings: How large the changes may be.
        limits: What results are clipped to; values the image already has stay possible.

    Returns:
        (H, W, bands) of the image's type, rounded if that is an integer type. ``image`` itself if nothing changes.
    """
    if settings.brightness == settings.contrast == settings.band_gain == settings.noise == 0:
        return image
    height, width, bands = image.shape
    brightness, contrast, noise = rng.random(3)
    start = int(rng.integers(_NOISE_VALUES // 2))
    gains = 1 + settings.band_gain * (2 * rng.random(bands) - 1)
    gains *= 1 + settings.brightness * (2 * brightness - 1)
    stretch = 1 + settings.contrast * (2 * contrast - 1)

    # Rows of width * bands values: one factor for each column keeps numpy's inner loop long.
    values = image.reshape(height, width * bands).astype(np.float32)
    low, high = limits.low, limits.high
    if not np.issubdtype(image.dtype, np.integer):
        # fmin and fmax pass over NaN.
        low = min(low, float(np.fmin.reduce(values, axis=None)))
        high = max(high, float(np.fmax.reduce(values, axis=None)))
    means = _band_means(values, bands)
    values *= np.tile(np.float32(gains * stretch), width)
    values += np.tile(np.float32(gains * (1 - stretch) * means), width)
    if settings.noise > 0:
        gaussian = _gaussian(values.size, start).reshape(values.shape)
        values += gaussian * np.float32(noise * settings.noise * limits.span)
    np.clip(values, low, high, out=values)
    if np.issubdtype(image.dtype, np.integer):
        np.rint(values, out=values)
    return values.astype(image.dtype).reshape(image.shape)


def _band_means(values: NDArray[np.float32], bands: int) -> NDArray[np.floating[Any]]:
    """Return the mean of each band of (H, W * bands) values, leaving out values that aren't finite."""
    means: NDArray[np.floating[Any]] = values.mean(axis=0).reshape(-1, bands).mean(axis=0, dtype=np.float64)
    if not np.isfinite(means).all():
        pixels = values.reshape(-1, bands)
        finite = np.isfinite(pixels)
        means = np.where(finite, pixels, 0).sum(axis=0, dtype=np.float64) / np.maximum(finite.sum(axis=0), 1)
    return means


def _gaussian(count: int, start: int) -> NDArray[np.float32]:
    """Return ``count`` standard normal numbers, those from ``start`` on of a fixed endless sequence."""
    numbers = _gaussian_numbers()
    return (
        numbers[start : start + count] if start + count <= len(numbers) else np.resize(numbers, start + count)[start:]
    )


@cache
def _gaussian_numbers() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(_NOISE_VALUES, dtype=np.float32)
