"""How much two sets of logits differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def noise_share(found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> float:
    """Return the energy of the difference, as a share of that of the expected logits' differences between classes.

    What all classes of a pixel have in common changes no decision and doesn't count.

    Args:
        found: Logits (C, H, W) of each tile.
        expected: What they should be.
    """
    wrong = sum(
        float(np.square(_between_classes(one - other)).sum()) for one, other in zip(found, expected, strict=True)
    )
    right = sum(float(np.square(_between_classes(other)).sum()) for other in expected)
    return wrong / right if right else float(wrong > 0)


def _between_classes(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = logits - logits.mean(axis=0)
    return centred
