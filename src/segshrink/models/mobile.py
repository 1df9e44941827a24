"""The tiny student: a truncated MobileNetV2 with a light decoder, under 0.49 M parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError
from segshrink.models.layers import (
    SeparableConv,
    check_range,
    initialize,
    initialize_head,
    scaled_channels,
    upsample_like,
)

# (expansion, channels, stride) of features.1 to features.13: table 2 of Sandler 2018, as torchvision counts them.
_BLOCKS = (
    (1, 16, 1),
    (6, 24, 2), (6, 24, 1),
    (6, 32, 2), (6, 32, 1), (6, 32, 1),
    (6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1),
    (6, 96, 1), (6, 96, 1), (6, 96, 1),
)  # fmt: skip
# The last block at stride 2, 4 and 8: where the skip connections leave.
_SKIPS = (1, 3, 6)
# Channels of the context and of the decoder at stride 8, 4 and 2.
_DECODER_CHANNELS = (64, 64, 48, 32)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project, and add the input where shapes agree (Sandler 2018).

    The same block, with the same names inside, as torchvision's, whose import would cost a small model's user four
    seconds and 170 MB.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [_normed(inputs, hidden, kernel=1)]
        filter_each = _normed(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, filter_each, *project)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride) for features (N, inputs, H, W)."""
        residual: Tensor = self.conv(features)
        return features + residual if self.adds_input else residual


class MobileEncoder(nn.Module):
    """The first blocks of MobileNetV2 (Sandler 2018), named as in torchvision (``features.0.0.weight``, ...).

    Args:
        bands: Bands of the image.
        width: Factor on all channels; 1 is what pretrained weights fit.
        blocks: Inverted residual blocks kept, 7 to 13; the result is at stride 16.

    Attributes:
        out_channels: Channels of the features at stride 2, 4, 8 and 16.
    """

    def __init__(self, bands: int, *, width: float = 1.0, blocks: int = 12) -> None:
        super().__init__()
        channels = scaled_channels(32 * width)
        features: list[nn.Module] = [_normed(bands, channels, kernel=3, stride=2)]
        self.out_channels: list[int] = []
        for position, (expansion, block_channels, stride) in enumerate(_BLOCKS[:blocks], start=1):
            outputs = scaled_channels(block_channels * width)
            features.append(InvertedResidual(channels, outputs, stride=stride, expansion=expansion))
            channels = outputs
            if position in (*_SKIPS, blocks):
                self.out_channels.append(channels)
        self.features = nn.Sequential(*features)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features at stride 2, 4, 8 and 16 of images (N, bands, H, W)."""
        taken = []
        last = len(self.features) - 1
        features = images
        for position, block in enumerate(self.features):
            features = block(features)
            if position in (*_SKIPS, last):
                taken.append(features)
        return taken


class ContextBlock(nn.Module):
    """Looks around: two dilated depthwise branches and the image's average, mixed by a 1×1 convolution.

    A separable, three-branch form of the pyramid of Chen 2017 (DeepLabv3): at stride 16 the branches see 5 and 9
    positions across.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = _pointwise(inputs, outputs)
        self.near = _depthwise(outputs, dilation=2)
        self.far = _depthwise(outputs, dilation=4)
        # No batch normalization here: a batch of one image has one value a channel.
        self.whole = nn.Sequential(nn.Conv2d(outputs, outputs, 1), nn.ReLU(inplace=True))
        self.mix = _pointwise(3 * outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for features (N, inputs, H, W)."""
        reduced = self.reduce(features)
        whole = self.whole(reduced.mean(dim=(2, 3), keepdim=True))
        mixed: Tensor = self.mix(torch.cat([reduced, self.near(reduced), self.far(reduced)], dim=1))
        return torch.add(mixed, whole)


class DecoderStage(nn.Module):
    """Doubles the size, joins the encoder's features, and refines with two separable convolutions.

    Channels are reduced before the size is doubled, where that is four times as cheap.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.reduce = _pointwise(inputs, outputs) if inputs > outputs else nn.Identity()
        self.join = SeparableConv(min(inputs, outputs) + skip, outputs)
        self.refine = SeparableConv(outputs, outputs)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Return (N, outputs, 2H, 2W) for features (N, inputs, H, W) and skip (N, channels, 2H, 2W)."""
        joined: Tensor = self.join(torch.cat([upsample_like(self.reduce(features), skip), skip], dim=1))
        refined: Tensor = self.refine(joined)
        return joined + refined


class MobileSegmenter(nn.Module):
    """A small network with sharp borders: MobileNetV2 to stride 16, context, skips at stride 8, 4 and 2.

    After Sandler 2018 (MobileNetV2, DOI 10.1109/CVPR.2018.00474) and the decoder of Chen 2018 (DeepLabv3+).

    Args:
        num_classes: C.
        bands: Bands of the image.
        width: Factor on all channels, rounded to multiples of 8; pretrained encoder weights fit 1 only.
        blocks: Encoder blocks kept, 7 to 13.
        dropout: Chance that a channel is dropped before the head in training.
        decoder_channels: Channels of the context and of the decoder at stride 8, 4 and 2; empty: 64, 64, 48 and 32
            times ``width``. Most of the time goes where images are large; with three the decoder ends at stride 4.

    Shape:
        (N, bands, H, W) with H and W multiples of 16 → logits (N, C, H/2, W/2), or half of that with three.
    """

    stride = 16

    def __init__(
        self,
        num_classes: int,
        bands: int,
        *,
        width: float = 1.0,
        blocks: int = 12,
        dropout: float = 0.0,
        decoder_channels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_range("width", width, 0.1, 4)
        check_range("blocks", blocks, 7, len(_BLOCKS))
        check_range("dropout", dropout, 0, 0.9)
        if decoder_channels and (len(decoder_channels) not in (3, 4) or min(decoder_channels) < 1):
            raise ModelError(
                f"option 'decoder_channels' must be 3 or 4 numbers above 0, found {list(decoder_channels)}"
            )
        self.encoder = MobileEncoder(bands, width=width, blocks=blocks)
        half, quarter, eighth, sixteenth = self.encoder.out_channels
        deep, middle, high, *top = decoder_channels or [
            scaled_channels(channels * width) for channels in _DECODER_CHANNELS
        ]
        self.context = ContextBlock(sixteenth, deep)
        self.to_eighth = DecoderStage(deep, eighth, middle)
        self.to_quarter = DecoderStage(middle, quarter, high)
        self.to_half = DecoderStage(high, half, top[0]) if top else None
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(top[0] if top else high, num_classes, 1)
        initialize(self)
        initialize_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at half the size of normalized images, or at a quarter."""
        half, quarter, eighth, sixteenth = self.encoder(images)
        features = self.to_eighth(self.context(sixteenth), eighth)
        features = self.to_quarter(features, quarter)
        if self.to_half is not None:
            features = self.to_half(features, half)
        logits: Tensor = self.head(self.dropout(features))
        return logits


def _normed(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalization and ReLU6, which MobileNetV2 is made of."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _depthwise(channels: int, *, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
