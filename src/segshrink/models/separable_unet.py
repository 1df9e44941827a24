"""A U-Net of residual depthwise-separable blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segshrink.models.layers import check_range, initialize, initialize_head, scaled_channels, upsample_like


class ResidualSeparableBlock(nn.Module):
    """Depthwise 3×3, pointwise 1×1, and a shortcut around them (He 2016), projected where the channels change.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        dilation: Distance of the depthwise taps in pixels.
    """

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for features (N, inputs, H, W)."""
        return torch.relu(self.body(features) + self.shortcut(features))


class SeparableUNet(nn.Module):
    """Residual depthwise-separable U-Net (Howard 2017; He 2016; Ronneberger 2015).

    Three encoder stages of two blocks (64-128-256) with max pooling, a bottleneck of two blocks at 512 channels with
    dilation 2 and 4 and dropout between them, three transposed convolutions (256-128-64), each joined with the
    encoder's features and followed by two blocks, and a 1×1 head.

    Args:
        num_classes: C.
        bands: Bands of the image.
        width: Factor on all channels, rounded to multiples of 8.
        dropout: Chance that a value of the bottleneck is dropped in training.

    Shape:
        (N, bands, H, W) with H and W multiples of 8 → logits (N, C, H, W).
    """

    stride = 8

    def __init__(self, num_classes: int, bands: int, *, width: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__()
        check_range("width", width, 0.05, 4)
        check_range("dropout", dropout, 0, 0.9)
        first, second, third, deepest = (scaled_channels(channels * width) for channels in (64, 128, 256, 512))
        self.encoder = nn.ModuleList([_stage(bands, first), _stage(first, second), _stage(second, third)])
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = nn.Sequential(
            ResidualSeparableBlock(third, deepest, dilation=2),
            nn.Dropout(dropout),
            ResidualSeparableBlock(deepest, deepest, dilation=4),
        )
        self.up = nn.ModuleList([_double(deepest, third), _double(third, second), _double(second, first)])
        self.decoder = nn.ModuleList([_stage(2 * third, third), _stage(2 * second, second), _stage(2 * first, first)])
        self.head = nn.Conv2d(first, num_classes, 1)
        initialize(self)
        initialize_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of the images' size."""
        skips: list[Tensor] = []
        features = images
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
            features = self.pool(features)
        features = self.bottleneck(features)
        for up, stage in zip(self.up, self.decoder, strict=True):
            features = stage(torch.cat([up(features), skips.pop()], dim=1))
        logits: Tensor = self.head(features)
        return logits if logits.shape[-2:] == images.shape[-2:] else upsample_like(logits, images)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ResidualSeparableBlock(inputs, outputs), ResidualSeparableBlock(outputs, outputs))


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
