"""ESPNetv2: an encoder of dilated depthwise pyramids, and the decoder of its published segmentation weights."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segshrink.errors import ModelError
from segshrink.models.layers import initialize, initialize_head

# Those of table 1; channels of others don't divide into groups.
_SCALES = (0.5, 1.0, 1.25, 1.5, 2.0)
# Dilation of each branch at stride 4, 8 and 16: a pyramid may see 9 positions across, the last ones 7 (section 3.1).
_DILATIONS, _LAST_DILATIONS = (1, 2, 3, 4), (1, 1, 2, 3)
# Pyramids behind the one with stride, at stride 8 and 16.
_EIGHTH_BLOCKS, _SIXTEENTH_BLOCKS = 3, 7
# Channels at stride 2 at most, and those that the image is squeezed into before it reinforces features.
_MOST_HALF_CHANNELS, _IMAGE_CHANNELS = 32, 3
# Channels of the decoder at stride 16, 8 and 4, and of each branch of its pyramids.
_DECODER_CHANNELS, _BRANCH_CHANNELS = (64, 48, 32), 10
# Cells that the coarsest branch of the decoder's pyramids averages over: at least so many, and one for ten positions.
_FEWEST_CELLS, _POSITIONS_OF_A_CELL = 5, 10


class DilatedPyramid(nn.Module):
    """Reduce, filter each channel at several dilations, add the branches up one by one, mix ("EESP", section 3.1).

    Adding each branch to all smaller ones leaves no grid in what dilated filters see.

    Args:
        inputs: Channels in, a multiple of the number of branches; without stride as many as ``outputs``.
        outputs: Channels out, a multiple of the square of that number.
        dilations: Dilation of each branch.
        stride: 2 halves the size and leaves activation and shortcut to ``StridedPyramid``.
    """

    def __init__(self, inputs: int, outputs: int, dilations: tuple[int, ...], *, stride: int = 1) -> None:
        super().__init__()
        branches = len(dilations)
        channels = outputs // branches
        self.proj_1x1 = _conv_norm_act(inputs, channels, groups=branches)
        self.spp_dw = nn.ModuleList(
            _named(conv=_conv(channels, channels, kernel=3, stride=stride, dilation=dilation, groups=channels))
            for dilation in dilations
        )
        self.br_after_cat = _named(bn=nn.BatchNorm2d(outputs), act=nn.PReLU(outputs))
        self.conv_1x1_exp = _named(conv=_conv(outputs, outputs, groups=branches), bn=nn.BatchNorm2d(outputs))
        # Published weights have it with stride too, where it does nothing: distributed training wants no such gradient.
        self.module_act = nn.PReLU(outputs).requires_grad_(stride == 1)
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride) for features (N, inputs, H, W)."""
        reduced = self.proj_1x1(features)
        branches = list(accumulate(branch(reduced) for branch in self.spp_dw))
        merged: Tensor = self.conv_1x1_exp(self.br_after_cat(torch.cat(branches, dim=1)))
        if self.stride > 1:
            return merged
        activated: Tensor = self.module_act(merged + features)
        return activated


class StridedPyramid(nn.Module):
    """Halves the size: averages beside a pyramid with stride, and the image itself added to both (section 3.2)."""

    def __init__(self, inputs: int, outputs: int, bands: int) -> None:
        super().__init__()
        self.eesp = DilatedPyramid(inputs, outputs - inputs, _DILATIONS, stride=2)
        self.inp_reinf = nn.Sequential(
            _conv_norm_act(bands, _IMAGE_CHANNELS, kernel=3),
            _named(conv=_conv(_IMAGE_CHANNELS, outputs), bn=nn.BatchNorm2d(outputs)),
        )
        self.act = nn.PReLU(outputs)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Return (N, outputs, H / 2, W / 2) for features (N, inputs, H, W) and images (N, bands, H / 2, W / 2)."""
        halved = torch.cat([_average_halved(features), self.eesp(features)], dim=1)
        activated: Tensor = self.act(halved + self.inp_reinf(images))
        return activated


class ESPNetV2Encoder(nn.Module):
    """ESPNetv2 without its last level and classifier (table 1), named as in the published weights.

    Args:
        bands: Bands of the image.
        scale: Factor on the channels 32, 64, 128 and 256 at stride 2, 4, 8 and 16; those at stride 2 never exceed 32.

    Attributes:
        out_channels: Channels of the features at stride 2, 4, 8 and 16.
    """

    def __init__(self, bands: int, *, scale: float) -> None:
        super().__init__()
        base = int(32 * scale)
        half, quarter, eighth, sixteenth = min(base, _MOST_HALF_CHANNELS), 2 * base, 4 * base, 8 * base
        self.out_channels = [half, quarter, eighth, sixteenth]
        self.level1 = _conv_norm_act(bands, half, kernel=3, stride=2)
        self.level2_0 = StridedPyramid(half, quarter, bands)
        self.level3_0 = StridedPyramid(quarter, eighth, bands)
        self.level3 = nn.Sequential(*(DilatedPyramid(eighth, eighth, _DILATIONS) for _ in range(_EIGHTH_BLOCKS)))
        self.level4_0 = StridedPyramid(eighth, sixteenth, bands)
        self.level4 = nn.Sequential(
            *(DilatedPyramid(sixteenth, sixteenth, _LAST_DILATIONS) for _ in range(_SIXTEENTH_BLOCKS))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features at stride 2, 4, 8 and 16 of images (N, bands, H, W)."""
        half = self.level1(images)
        images = _average_halved(_average_halved(images))
        quarter = self.level2_0(half, images)
        images = _average_halved(images)
        eighth = self.level3(self.level3_0(quarter, images))
        sixteenth = self.level4(self.level4_0(eighth, _average_halved(images)))
        return [half, quarter, eighth, sixteenth]


class ScalePyramid(nn.Module):
    """Filters features at five sizes, from twice as large to a tenth, and mixes them ("efficient pyramid pooling").

    Args:
        inputs: Channels in.
        outputs: Channels out.
        is_head: Whether these are the logits: a bias, and neither normalization nor activation behind it.
    """

    def __init__(self, inputs: int, outputs: int, *, is_head: bool = False) -> None:
        super().__init__()
        channels, sizes = _BRANCH_CHANNELS, 5
        self.projection_layer = _in_decoder(inputs, channels)
        self.stages = nn.ModuleList(_conv(channels, channels, kernel=3, groups=channels) for _ in range(sizes))
        self.merge_layer = nn.Sequential(
            _named(br=nn.Sequential(nn.BatchNorm2d(sizes * channels), nn.PReLU(sizes * channels))),
            _Interleave(sizes),
            _in_decoder(sizes * channels, channels, kernel=3, groups=channels),
            nn.Conv2d(channels, outputs, 1, bias=is_head),
        )
        if not is_head:
            self.br = _named(br=nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs)))
        self.is_head = is_head

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for features (N, inputs, H, W), H and W even."""
        narrow = self.projection_layer(features)
        size = height, width = narrow.shape[-2:]
        twice, larger, same, half, tenth = self.stages
        cells = _cells(height), _cells(width)
        branches = [
            F.avg_pool2d(twice(_resized(narrow, (2 * height, 2 * width))), 2),
            F.adaptive_avg_pool2d(larger(_resized(narrow, (3 * height // 2, 3 * width // 2))), size),
            same(narrow),
            _resized(half(F.avg_pool2d(narrow, 2)), size),
            _resized(tenth(F.adaptive_avg_pool2d(narrow, cells)), size),
        ]
        merged: Tensor = self.merge_layer(torch.cat(branches, dim=1))
        return merged if self.is_head else self.br(merged)


class GatedSkip(nn.Module):
    """Brings features of the encoder to the decoder's channels, each weighted by what the whole image holds."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())
        self.expansion_layer = _in_decoder(inputs, outputs, kernel=3, groups=math.gcd(inputs, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for features (N, inputs, H, W)."""
        weighted: Tensor = self.expansion_layer(features) * self.wt_layer(features)
        return weighted


class ESPNetV2(nn.Module):
    """ESPNetv2 for segmentation, tensor by tensor that of the published weights.

    After Mehta 2019 (arXiv 1811.11431); the decoder is that of the authors' EdgeNets, whose weights for Pascal VOC and
    Cityscapes fit at ``scale`` 0.5, 1, 1.5 and 2.

    Args:
        num_classes: C.
        bands: Bands of the image.
        scale: Factor on the encoder's channels: 0.5, 1, 1.25, 1.5 or 2. The published ones have 0.08, 0.23, 0.47 and
            0.79 million parameters.

    Shape:
        (N, bands, H, W) with H and W multiples of 32 → logits (N, C, H, W).
    """

    stride = 32

    def __init__(self, num_classes: int, bands: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if scale not in _SCALES:
            raise ModelError(f"option 'scale' must be one of {', '.join(map(str, _SCALES))}, found {scale}")
        self.base_net = ESPNetV2Encoder(bands, scale=scale)
        half, quarter, eighth, sixteenth = self.base_net.out_channels
        deep, middle, high = _DECODER_CHANNELS
        self.bu_dec_l1 = ScalePyramid(sixteenth, deep)
        self.bu_dec_l2 = ScalePyramid(deep, middle)
        self.bu_dec_l3 = ScalePyramid(middle, high)
        self.bu_dec_l4 = ScalePyramid(high, num_classes, is_head=True)
        self.merge_enc_dec_l2, self.bu_br_l2 = GatedSkip(eighth, deep), _norm_act(deep)
        self.merge_enc_dec_l3, self.bu_br_l3 = GatedSkip(quarter, middle), _norm_act(middle)
        self.merge_enc_dec_l4, self.bu_br_l4 = GatedSkip(half, high), _norm_act(high)
        initialize(self)
        head = self.bu_dec_l4.merge_layer[-1]
        assert isinstance(head, nn.Conv2d)  # noqa: S101 - for the type checker
        initialize_head(head)

    @property
    def encoder(self) -> ESPNetV2Encoder:
        """The encoder, under the name that all networks have it."""
        return self.base_net

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at the size of normalized images."""
        half, quarter, eighth, sixteenth = self.base_net(images)
        features = self.bu_dec_l1(sixteenth)
        features = self.bu_dec_l2(self.bu_br_l2(_added(self.merge_enc_dec_l2(eighth), features)))
        features = self.bu_dec_l3(self.bu_br_l3(_added(self.merge_enc_dec_l3(quarter), features)))
        logits: Tensor = self.bu_dec_l4(self.bu_br_l4(_added(self.merge_enc_dec_l4(half), features)))
        return _resized(logits, images.shape[-2:])


def _cells(positions: int) -> Any:
    """Return a tenth, rounded up, at least 5; in terms of an export's symbols where ``positions`` is one."""
    return torch.sym_max(_FEWEST_CELLS, (positions + _POSITIONS_OF_A_CELL - 1) // _POSITIONS_OF_A_CELL)


class _Interleave(nn.Module):
    """Channel i of every group, then channel i + 1 of every group (channel shuffle, Zhang 2018)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, features: Tensor) -> Tensor:
        count, channels, height, width = features.shape
        grouped = features.reshape(count, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).flatten(1, 2)


def _added(skip: Tensor, features: Tensor) -> Tensor:
    return skip + _resized(features, skip.shape[-2:])


def _resized(features: Tensor, size: Any) -> Tensor:
    """Resize bilinearly; the middles of corner pixels stay where they are, as the published weights learned it."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)


def _average_halved(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, 3, stride=2, padding=1)


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _conv(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def _conv_norm_act(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _conv(inputs, outputs, kernel=kernel, stride=stride, groups=groups)
    return _named(conv=conv, bn=nn.BatchNorm2d(outputs), act=nn.PReLU(outputs))


def _in_decoder(inputs: int, outputs: int, *, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    conv = _conv(inputs, outputs, kernel=kernel, groups=groups)
    return _named(cbr=nn.Sequential(conv, *_norm_act(outputs)))


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))
