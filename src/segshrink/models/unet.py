"""The classic U-Net, of any width and depth."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from segshrink.models.layers import check_range, initialize, initialize_head


class DoubleConv(nn.Sequential):
    """Two 3×3 convolutions with ReLU, batch normalization behind each or a bias in each, dropout between them."""

    def __init__(self, inputs: int, outputs: int, *, batch_norm: bool, dropout: float) -> None:
        super().__init__(*_conv(inputs, outputs, batch_norm), nn.Dropout(dropout), *_conv(outputs, outputs, batch_norm))


class UNet(nn.Module):
    """U-Net (Ronneberger 2015, arXiv 1505.04597) with padded convolutions and 2×2 transposed convolutions.

    With ``batch_norm=False`` it is, layer by layer, the U-Net of the Keras tutorials: width 8 with three bands and
    six classes has 485,862 parameters.

    Args:
        num_classes: C.
        bands: Bands of the image.
        width: Channels of the first level; they double with each level (16 gives 16-32-64-128-256).
        depth: Levels; 5 is the classic.
        batch_norm: Batch normalization instead of biases.
        dropout: Chance that a value is dropped between the two convolutions of a level.

    Shape:
        (N, bands, H, W) with H and W multiples of ``2 ** (depth - 1)`` → logits (N, C, H, W).
    """

    def __init__(
        self,
        num_classes: int,
        bands: int,
        *,
        width: int = 16,
        depth: int = 5,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("width", width, 1, 512)
        check_range("depth", depth, 2, 8)
        check_range("dropout", dropout, 0, 0.9)
        self.stride: int = 2 ** (depth - 1)
        channels = [width * 2**level for level in range(depth)]
        self.encoder = nn.ModuleList(
            DoubleConv(inputs, outputs, batch_norm=batch_norm, dropout=dropout)
            for inputs, outputs in pairwise([bands, *channels])
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairwise(channels[::-1])
        )
        self.decoder = nn.ModuleList(
            DoubleConv(2 * shallow, shallow, batch_norm=batch_norm, dropout=dropout) for shallow in channels[-2::-1]
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self)
        initialize_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the images' size."""
        skips: list[Tensor] = []
        features = images
        for level, block in enumerate(self.encoder):
            features = block(self.pool(features) if level else features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([up(features), skips.pop()], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _conv(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return [*layers, nn.ReLU(inplace=True)]
