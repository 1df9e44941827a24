"""Pixels that lie away from the borders between labels, where annotators disagree least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX


def without_borders(target: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return a target that ignores all pixels within ``width`` pixels of another class.

    Distances are counted along rows and columns, whichever is larger; where no label is, there is no border.

    Args:
        target: (H, W) class indices, 255 where unknown.
        width: In pixels, at least 1.

    Example:
        >>> without_borders(np.array([[0, 0, 0, 1, 255, 2, 2]], np.uint8), 1).tolist()
        [[0, 0, 255, 255, 255, 2, 2]]
    """
    from scipy import ndimage  # evaluating without borders does without it

    labels = np.asarray(target)
    side = 2 * width + 1
    lowest = ndimage.minimum_filter(labels, side)
    highest = ndimage.maximum_filter(np.where(labels == IGNORE_INDEX, 0, labels), side)
    return np.where(lowest == highest, labels, np.uint8(IGNORE_INDEX))
