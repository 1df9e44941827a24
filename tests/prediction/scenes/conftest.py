from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segshrink.imagery.georeference import Georeference
from segshrink.tiling import Window


class ArrayScene:
    """A scene that lies in memory."""

    name = "array"
    source = "array"

    def __init__(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        self.pixels, self.valid = pixels, valid
        self.height, self.width, self.bands = pixels.shape
        self.dtype = str(pixels.dtype)
        self.georeference = Georeference(self.height, self.width)
        self.reads: list[Window] = []

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        self.reads.append(window)
        return self.pixels[window.slices], None if self.valid is None else self.valid[window.slices]


@pytest.fixture
def array_scene() -> type[ArrayScene]:
    return ArrayScene
