"""A backend without any library: a box filter, whose receptive field is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segshrink.classes import ClassMap


class BoxBackend:
    """Logit c = mean over a (2 * reach + 1)² box of (c + 1) * brightness, wandering around a middle gray."""

    name = "box"
    bands = 2
    runtime = "numpy"
    description = None
    own_tile = None

    def __init__(self, *, reach: int, classes: int = 3, padding: str = "constant") -> None:
        self.reach, self.padding = reach, padding
        self.classes = ClassMap.build([(f"class {number}", None, None) for number in range(classes)])
        self.num_classes = classes
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.shapes.append(images.shape)
        reach = self.reach
        gray = images.astype(np.float64).mean(axis=3) - 128
        padded = np.pad(gray, ((0, 0), (reach, reach), (reach, reach)), mode=self.padding)  # type: ignore[call-overload]
        height, width = gray.shape[1:]
        box = (
            sum(
                padded[:, row : row + height, col : col + width]
                for row in range(2 * reach + 1)
                for col in range(2 * reach + 1)
            )
            / (2 * reach + 1) ** 2
        )
        tilt = np.linspace(-1, 1, self.num_classes)[:, None, None]
        return (box[:, None] * tilt + 4 * (1 - tilt**2)).astype(np.float32)

    def classify(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self.run(images).argmax(axis=1).astype(np.uint8)


@pytest.fixture
def box_backend() -> type[BoxBackend]:
    return BoxBackend
