from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from segshrink.models import SegmentationModel
from segshrink.training import SegmentationTask


def test_a_validation_scene_takes_a_byte_a_pixel_whatever_the_classes() -> None:
    model = SegmentationModel.wrap(nn.Conv2d(1, 20, 1), classes=[str(number) for number in range(20)])
    task: Any = SegmentationTask(model)
    task._trainer = SimpleNamespace(precision="32-true")
    image = np.zeros((1500, 1500, 1), np.uint8)
    tracemalloc.start()
    try:
        task._score_scene({"image": image, "target": image[:, :, 0]})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * image.size
    assert task._confusion.matrix.sum() == image.size
