"""Showing images of any bands and numbers on a screen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pixels that percentiles are taken from; more don't change them visibly.
_SAMPLE = 1_000_000


def to_display(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn an image into colours for a screen.

    Args:
        image: (H, W, bands) or (H, W) of any numbers.

    Returns:
        (H, W, 3) uint8: the first three bands, or the first one three times. uint8 stays as it is; of other numbers
        each band is stretched so that its 2nd to 98th percentile fill 0 to 255. NaN and infinity become black.
    """
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    shown = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    if shown.dtype == np.bool_:
        return shown.astype(np.uint8) * np.uint8(255)
    if image.shape[2] < 3:
        return np.repeat(_stretched(image[:, :, 0])[:, :, np.newaxis], 3, axis=2)
    return np.stack([_stretched(shown[:, :, band]) for band in range(3)], axis=2)


def _stretched(band: NDArray[Any]) -> NDArray[np.uint8]:
    values = band.astype(np.float32)
    step = max(1, int(np.sqrt(values.size / _SAMPLE)))
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.zeros(band.shape, dtype=np.uint8)
    low, high = np.percentile(sample, (2, 98)).astype(np.float32)
    if high <= low:
        low, high = sample.min(), sample.max()
    scale = 255 / (high - low) if high > low else 0.0
    stretched = np.clip((np.where(np.isfinite(values), values, low) - low) * np.float32(scale), 0, 255)
    whole: NDArray[np.uint8] = np.rint(stretched).astype(np.uint8)
    return whole
