"""Labels that models which haven't seen them confidently contradict: confident learning for segmentation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX
from segshrink.imagery.polygonize import Regions, Strip, find_regions


class SelfConfidence:
    """The mean probability that models give each class where it is the label, streamed over scenes.

    It is the threshold of confident learning (Northcutt et al. 2021, *Confident learning: estimating uncertainty in
    dataset labels*, equation 2), for which the probabilities must come from models that haven't seen the labels.

    Args:
        classes: Number of classes, C.
    """

    def __init__(self, classes: int) -> None:
        self._totals, self._pixels = np.zeros(classes), np.zeros(classes)

    def update(self, probabilities: NDArray[np.float32], target: NDArray[np.uint8]) -> None:
        """Count a scene.

        Args:
            probabilities: (C, H, W).
            target: (H, W) class indices, 255 where unknown.
        """
        for index in np.unique(target[target != IGNORE_INDEX]):
            given = probabilities[index][target == index]
            self._totals[index] += given.sum(dtype=np.float64)
            self._pixels[index] += given.size

    def thresholds(self) -> NDArray[np.float32]:
        """Return the mean of each class, (C,); 1 for classes that no label holds."""
        means = np.ones(len(self._totals))
        np.divide(self._totals, self._pixels, out=means, where=self._pixels > 0)
        return means.astype(np.float32)


def confident_classes(probabilities: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the likeliest of the classes whose probability reaches its threshold, 255 where none does.

    Args:
        probabilities: (C, H, W).
        thresholds: (C,), see ``SelfConfidence``.

    Returns:
        (H, W) class indices: the column of the confident joint (Northcutt et al. 2021, equation 1) that a pixel is in.

    Example:
        >>> probabilities = np.array([[[0.9, 0.6, 0.3]], [[0.1, 0.4, 0.7]]], np.float32)
        >>> confident_classes(probabilities, np.array([0.8, 0.5], np.float32)).tolist()
        [[0, 255, 1]]
    """
    reached = np.where(probabilities >= thresholds[:, np.newaxis, np.newaxis], probabilities, -1)
    likeliest = reached.argmax(axis=0).astype(np.uint8)
    return np.where(reached.max(axis=0) < 0, np.uint8(IGNORE_INDEX), likeliest)


def label_margin(probabilities: NDArray[np.float32], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return by how much the likeliest other class of a pixel beats its label, (H, W) in [-1, 1]; -1 without a label.

    Args:
        probabilities: (C, H, W).
        target: (H, W) class indices, 255 where unknown.
    """
    labels = np.where(target == IGNORE_INDEX, 0, target)[np.newaxis].astype(np.intp)
    others = probabilities.copy()
    np.put_along_axis(others, labels, -np.inf, axis=0)
    margin = others.max(axis=0) - np.take_along_axis(probabilities, labels, axis=0)[0]
    return np.where(target == IGNORE_INDEX, np.float32(-1), margin)


def label_doubt(
    probabilities: NDArray[np.float32], target: NDArray[np.uint8], thresholds: NDArray[np.float32], *, width: int = 3
) -> NDArray[np.float32]:
    """Return how doubtful each pixel's label is; comparable between the images of one data set.

    A class counts by how far its probability lies above its threshold, so that rare classes, of which models are less
    sure wherever they are, aren't all doubted. Mislabeled pixels lie together: the margin of the best other class is
    averaged over the labeled pixels of a square around each.

    Args:
        probabilities: (C, H, W), of models that haven't seen the labels.
        target: (H, W) class indices, 255 where unknown.
        thresholds: (C,), see ``SelfConfidence``.
        width: The square reaches so many pixels to each side.

    Returns:
        (H, W) in [-2, 2], NaN without a label.
    """
    from scipy import ndimage  # scores do without it

    labeled = target != IGNORE_INDEX
    margin = label_margin(probabilities - thresholds[:, np.newaxis, np.newaxis], target)
    side = 2 * width + 1
    total = ndimage.uniform_filter(np.where(labeled, margin, 0).astype(np.float64), side, mode="constant")
    share = ndimage.uniform_filter(labeled.astype(np.float64), side, mode="constant")
    return np.where(labeled, total / np.maximum(share, 0.5 / side**2), np.nan).astype(np.float32)


def contradicted_regions(
    probabilities: NDArray[np.float32], target: NDArray[np.uint8], thresholds: NDArray[np.float32], *, width: int
) -> Iterator[tuple[int, Regions]]:
    """Find connected pixels of one label of which models are confident that they are one other class.

    Args:
        probabilities: (C, H, W), of models that haven't seen the labels.
        target: (H, W) class indices, 255 where unknown.
        thresholds: (C,), see ``SelfConfidence``.
        width: Regions of which no pixel is more than so many pixels from the edge are left out: along borders
            annotators differ by a few.

    Yields:
        A class, and the regions that it is suggested for: ``classes`` are their labels, ``totals`` the gain in
        probability summed over ``counts`` pixels.
    """
    import shapely

    confident = confident_classes(probabilities, thresholds)
    confident[(confident == target) | (target == IGNORE_INDEX)] = IGNORE_INDEX
    labels = np.where(target == IGNORE_INDEX, 0, target)[np.newaxis].astype(np.intp)
    given = np.take_along_axis(probabilities, labels, axis=0)[0]
    for suggestion in np.unique(confident[confident != IGNORE_INDEX]).tolist():
        doubted = np.where(confident == suggestion, target, np.uint8(IGNORE_INDEX))
        gain = np.ma.masked_array(probabilities[suggestion] - given)
        regions = Regions.joined(list(find_regions([Strip(0, doubted, gain)])))
        regions = regions[regions.counts >= (2 * width + 1) ** 2]
        wide = ~shapely.is_empty(shapely.buffer(regions.polygons, -width, join_style="mitre"))
        yield suggestion, regions[wide]
