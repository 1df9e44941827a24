"""How images become the one size that a network takes, and how its answers come back to theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.config import Adapter
from segshrink.prediction.tiled import OVERLAP, predict_tiles

# Tiles that a network gets at once.
_BATCH = 4

Network = Callable[[NDArray[Any]], NDArray[np.float32]]


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
    def of(cls, adapter: Adapter, size: tuple[int, int] | None) -> Self:
        """Return what an adapter says for a network of this size."""
        return cls(size, adapter.fit, adapter.place, adapter.fill)

    def logits(self, images: NDArray[Any], network: Network) -> NDArray[np.float32]:
        """Return the logits (N, K, H, W) of a network for images of any size.

        Args:
            images: Raw pixels (N, bands, H, W), uint8 or float32.
            network: (n, bands, *size) raw pixels -> (n, K, h, w) logits.
        """
        size = (images.shape[2], images.shape[3])
        if self.size is None or size == self.size:
            return resized(network(images), size)
        if self.how == "tile":
            return np.stack([self._tiled(image, network, self.size) for image in images])
        return self._whole(images, network, self.size)

    def scaled(self, images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
        """Resize raw pixels (N, bands, H, W), uint8 or float32, as Pillow's ``BILINEAR``: smoothed where they shrink.

        8-bit pixels stay whole numbers. For the DeepLab that ``benchmarks/deeplab.py`` measures, smoothing gave 60.0
        mIoU on 194 images; interpolation without it 60.9.
        """
        bands = [
            np.asarray(Image.fromarray(band).resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
            for image in images
            for band in image
        ]
        return np.stack(bands).reshape(*images.shape[:2], *size)

    def _whole(self, images: NDArray[Any], network: Network, size: tuple[int, int]) -> NDArray[np.float32]:
        """Letterbox or stretch; of the logits, the padding is cut before they are resized."""
        height, width = images.shape[2:]
        inner = size if self.how == "stretch" else _letterbox(height, width, size)
        top, left = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2) if self.place == "center" else (0, 0)
        canvas = np.full((*images.shape[:2], *size), self.fill, np.float32)
        canvas[:, :, top : top + inner[0], left : left + inner[1]] = self.scaled(images, inner)
        logits = resized(network(canvas), size)[:, :, top : top + inner[0], left : left + inner[1]]
        return resized(logits, (height, width))

    def _tiled(self, image: NDArray[Any], network: Network, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the blended logits (K, H, W) of one image (bands, H, W)."""
        height, width = image.shape[1:]
        missing = ((0, 0), (0, max(size[0] - height, 0)), (0, max(size[1] - width, 0)))
        pixels = np.pad(image, missing, mode="edge").transpose(1, 2, 0)

        def answer(tiles: NDArray[Any]) -> NDArray[np.float32]:
            return resized(network(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))), size)

        overlap = min(OVERLAP, min(size) // 4)
        logits = predict_tiles(pixels, answer, tile=size, overlap=overlap, batch=_BATCH, blend="cosine")
        return np.ascontiguousarray(logits[:, :height, :width])


def resized(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate maps (N, C, h, w) bilinearly to a size, without smoothing; pixels are areas, as in PyTorch."""
    for axis, new in zip((2, 3), size, strict=True):
        old = maps.shape[axis]
        if old == new:
            continue
        places = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
        low = np.minimum(places.astype(np.intp), old - 1)
        share = (places - low).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        first, second = (maps.take(index, axis) for index in (low, np.minimum(low + 1, old - 1)))
        maps = first + (second - first) * share
    return maps


def _letterbox(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the image inside the canvas."""
    scale = min(size[0] / height, size[1] / width)
    return min(max(round(height * scale), 1), size[0]), min(max(round(width * scale), 1), size[1])
