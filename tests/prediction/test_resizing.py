"""Images and answers brought to another size, as PyTorch does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.prediction.resizing import Resizing, resized

SIZES = [(5, 9), (16, 12), (1, 1), (31, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_answers_are_interpolated(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(maps), size=size, mode="bilinear", align_corners=False)
    assert resized(maps, size).dtype == np.float32
    np.testing.assert_allclose(resized(maps, size), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_smoothed_where_they_shrink(size: tuple[int, int], dtype: type[np.generic]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 6)).astype(dtype)
    expected = F.interpolate(torch.from_numpy(images), size=size, mode="bilinear", align_corners=False, antialias=True)
    # torch rounds 8-bit pixels in another place than Pillow.
    np.testing.assert_allclose(
        Resizing(None).scaled(images, size), expected.float().numpy(), atol=1 if dtype == np.uint8 else 1e-3
    )
