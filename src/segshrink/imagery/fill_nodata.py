"""Filling pixels that have no value, so that a network sees no edge where an image ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAR = np.int32(1 << 29)


def fill_nodata(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Give every invalid pixel the values of the nearest valid one in its row or column, in place.

    Where a pixel's row and column hold no valid one, it takes what the nearest pixel of its row took; where nothing is
    valid at all, 0. So an image's edge goes on beyond it like a replicated border. What a pixel gets depends on what
    lies between it and its nearest valid pixel alone, and thus on the window only where that lies outside of it.

    Args:
        pixels: (h, w, bands).
        valid: (h, w).
    """
    if not valid.any():
        pixels[:] = 0
        return
    known = valid
    # Every row meets a column with a valid pixel, so a second round reaches all.
    while not known.all():
        rows, cols = np.nonzero(~known)
        source_rows, source_cols, found = _nearest(known, rows, cols)
        pixels[rows[found], cols[found]] = pixels[source_rows[found], source_cols[found]]
        known = known.copy()
        known[rows[found], cols[found]] = True


def _nearest(
    known: NDArray[np.bool_], rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Return the nearest known pixel in the row or column of some pixels, and whether there is one."""
    height, width = known.shape
    across = np.where(known, np.arange(width, dtype=np.int32), -_FAR)
    down = np.where(known, np.arange(height, dtype=np.int32)[:, np.newaxis], -_FAR)
    left = np.maximum.accumulate(across, axis=1)[rows, cols]
    above = np.maximum.accumulate(down, axis=0)[rows, cols]
    np.copyto(across, _FAR, where=~known)
    np.copyto(down, _FAR, where=~known)
    right = np.minimum.accumulate(across[:, ::-1], axis=1)[:, ::-1][rows, cols]
    below = np.minimum.accumulate(down[::-1], axis=0)[::-1][rows, cols]
    distances = np.stack([cols - left, right - cols, rows - above, below - rows])
    choice = distances.argmin(axis=0)
    source_rows = np.select([choice == 2, choice == 3], [above, below], rows)
    source_cols = np.select([choice == 0, choice == 1], [left, right], cols)
    return source_rows, source_cols, distances.min(axis=0) < _FAR // 2
