"""How images become the one size that a network takes, and how its answers come back to theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.losses.shapes import resized
from segshrink.teachers.teacher import OVERLAP
from segshrink.tiling import Blend, cosine_weights, grid

# Tiles that a network gets at once.
BATCH = 4

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fitting:
    """Brings images of any size to one size, and the logits back.

    Attributes:
        size: Height and width that the network takes.
        how: "letterbox": the whole image, scaled until it just fits, with ``fill`` around it; "stretch": the whole
            image, each side scaled on its own; "tile": overlapping tiles of the image as it is, whose logits are
            blended with cosine weights. An image smaller than a tile has its edge repeated to the right and below.
        place: Where a letterboxed image lies: in the middle or in the upper left corner.
        fill: Raw value around a letterboxed image.
    """

    size: tuple[int, int]
    how: Literal["letterbox", "stretch", "tile"]
    place: Literal["center", "corner"] = "center"
    fill: float = 0.0

    def answers(self, images: Tensor, network: Network) -> Tensor:
        """Return the logits (N, K, H, W) of a network for images of another size.

        Args:
            images: Raw pixels (N, bands, H, W), uint8 or float32.
            network: (n, bands, *size) raw pixels -> (n, K, h, w) logits.
        """
        if tuple(images.shape[2:]) == self.size:
            return resized(network(images), self.size)
        if self.how == "tile":
            return torch.stack([self._tiled(image, network) for image in images])
        return self._whole(images, network)

    def _whole(self, images: Tensor, network: Network) -> Tensor:
        """Letterbox or stretch; of the logits, the padding is cut before they are resized."""
        height, width = images.shape[2:]
        inner = self._inner(height, width)
        top, left = ((self.size[0] - inner[0]) // 2, (self.size[1] - inner[1]) // 2)
        if self.place == "corner":
            top = left = 0
        canvas = torch.full((*images.shape[:2], *self.size), self.fill)
        canvas[:, :, top : top + inner[0], left : left + inner[1]] = scaled(images, inner)
        logits = resized(network(canvas), self.size)[:, :, top : top + inner[0], left : left + inner[1]]
        return resized(logits, (height, width))

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the image inside the canvas."""
        if self.how == "stretch":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return min(max(round(height * scale), 1), self.size[0]), min(max(round(width * scale), 1), self.size[1])

    def _tiled(self, image: Tensor, network: Network) -> Tensor:
        """Return the blended logits (K, H, W) of one image (bands, H, W)."""
        height, width = image.shape[1:]
        missing = (0, max(self.size[1] - width, 0), 0, max(self.size[0] - height, 0))
        if any(missing):
            image = F.pad(image.float()[None], missing, mode="replicate")[0]
        overlap = min(OVERLAP, min(self.size) // 4)
        windows = grid(*image.shape[1:], tile=self.size, overlap=overlap)
        weights = cosine_weights(*self.size, overlap=overlap)
        blend: Blend | None = None
        for start in range(0, len(windows), BATCH):
            group = windows[start : start + BATCH]
            tiles = torch.stack([image[:, *window.slices] for window in group])
            for window, logits in zip(group, resized(network(tiles), self.size), strict=True):
                blend = blend or Blend(len(logits), *image.shape[1:])
                blend.add(logits.numpy(), window, weights)
        assert blend is not None  # noqa: S101  # a grid has at least one window
        return torch.from_numpy(np.ascontiguousarray(blend.result()[:, :height, :width]))


def scaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize raw pixels (N, bands, H, W) as Pillow's ``BILINEAR`` does, which smooths where it shrinks; float32.

    8-bit pixels stay whole numbers, as in Pillow. For the DeepLab that ``benchmarks/deeplab.py`` measures, this gave
    60.0 mIoU on 194 images; interpolation without smoothing 60.9.
    """
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True).float()
