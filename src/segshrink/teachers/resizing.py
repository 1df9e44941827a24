"""How images become the one size that a network takes, and how its answers come back to theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segshrink.config import Adapter
from segshrink.losses.shapes import resized
from segshrink.prediction.tiled import OVERLAP, predict_tiles

# Tiles that a network gets at once.
_BATCH = 4

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Resizing:
    """Brings images of any size to the network's, and the logits back.

    Attributes:
        size: Height and width that the network takes; None: any, so that only the logits are resized.
        how: "letterbox": the whole image, scaled until it just fits, with ``fill`` around it; "stretch": the whole
            image, each side scaled on its own; "tile": overlapping tiles of the image as it is, whose logits are
            blended with cosine weights. An image smaller than a tile has its edge repeated to the right and below.
        place: Where a letterboxed image lies: in the middle or in the upper left corner.
        fill: Raw value around a letterboxed image.
    """

    size: tuple[int, int] | None
    how: Literal["letterbox", "stretch", "tile"] = "tile"
    place: Literal["center", "corner"] = "center"
    fill: float = 0.0

    @classmethod
    def of(cls, adapter: Adapter, size: tuple[int, int] | None) -> Resizing:
        """Return what an adapter says for a network of this size."""
        return cls(size, adapter.fit, adapter.place, adapter.fill)

    def logits(self, images: Tensor, network: Network) -> Tensor:
        """Return the logits (N, K, H, W) of a network for images of any size.

        Args:
            images: Raw pixels (N, bands, H, W), uint8 or float32.
            network: (n, bands, *size) raw pixels -> (n, K, h, w) logits.
        """
        size = (images.shape[2], images.shape[3])
        if self.size is None or size == self.size:
            return resized(network(images), size)
        if self.how == "tile":
            return torch.stack([self._tiled(image, network, self.size) for image in images])
        return self._whole(images, network, self.size)

    def _whole(self, images: Tensor, network: Network, size: tuple[int, int]) -> Tensor:
        """Letterbox or stretch; of the logits, the padding is cut before they are resized."""
        height, width = images.shape[2:]
        inner = size if self.how == "stretch" else _letterbox(height, width, size)
        top, left = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2) if self.place == "center" else (0, 0)
        canvas = torch.full((*images.shape[:2], *size), self.fill)
        canvas[:, :, top : top + inner[0], left : left + inner[1]] = scaled(images, inner)
        logits = resized(network(canvas), size)[:, :, top : top + inner[0], left : left + inner[1]]
        return resized(logits, (height, width))

    def _tiled(self, image: Tensor, network: Network, size: tuple[int, int]) -> Tensor:
        """Return the blended logits (K, H, W) of one image (bands, H, W)."""
        height, width = image.shape[1:]
        missing = (0, max(size[1] - width, 0), 0, max(size[0] - height, 0))
        if any(missing):
            image = F.pad(image.float()[None], missing, mode="replicate")[0]

        def answer(tiles: NDArray[Any]) -> NDArray[np.float32]:
            planes = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous()
            logits: NDArray[np.float32] = resized(network(planes), size).numpy()
            return logits

        pixels = image.permute(1, 2, 0).numpy()
        overlap = min(OVERLAP, min(size) // 4)
        logits = predict_tiles(pixels, answer, tile=size, overlap=overlap, batch=_BATCH, blend="cosine")
        return torch.from_numpy(np.ascontiguousarray(logits[:, :height, :width]))


def scaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize raw pixels (N, bands, H, W) as Pillow's ``BILINEAR`` does, which smooths where it shrinks; float32.

    8-bit pixels stay whole numbers, as in Pillow. For the DeepLab that ``benchmarks/deeplab.py`` measures, this gave
    60.0 mIoU on 194 images; interpolation without smoothing 60.9.
    """
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True).float()


def _letterbox(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the image inside the canvas."""
    scale = min(size[0] / height, size[1] / width)
    return min(max(round(height * scale), 1), size[0]), min(max(round(width * scale), 1), size[1])
