"""How a teacher's images become the one size that it takes: as its cached answers were always made."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from segshrink.prediction.resizing import Resizing


class TeacherResizing(Resizing):
    """Scales images by torch, which rounds some 8-bit pixels in another place than Pillow.

    That is one level of a few pixels in ten thousand, by which 8-bit networks may give other classes.
    """

    def scaled(self, images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
        """Resize raw pixels (N, bands, H, W) bilinearly, smoothed where they shrink; float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
        values: NDArray[np.float32] = resized.float().numpy()
        return values
