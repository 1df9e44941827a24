"""Pieces that our own networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segshrink.errors import ModelError


def scaled_channels(channels: float) -> int:
    """Round to a multiple of 8, at least 8 and at least 90 % of ``channels`` (torchvision's ``_make_divisible``)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ``ModelError`` unless an option lies in [low, high]."""
    if not low <= value <= high:
        raise ModelError(f"option '{name}' must be {low} to {high}, found {value}")


class SeparableConv(nn.Sequential):
    """Depthwise 3×3 and pointwise 1×1 in one, then batch normalisation and ReLU, as in DeepLabv3+ (Chen 2018).

    Nothing stands between the two: normalising and clipping there would cost as much time as both convolutions.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        dilation: Distance of the depthwise taps in pixels; the size stays.
    """

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class StridedDepthwiseConv(nn.Conv2d):
    """A depthwise convolution with stride that trains in float32 under CPU autocast.

    In bf16 its backward pass takes oneDNN three to seven times as long as in float32 (measured on a Zen 4 with
    AVX512-BF16, torch 2.15); there and in training only, the input is widened and the result narrowed again.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if not (self.training and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(input)
        narrow = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(narrow)


def quicken_strided_depthwise(network: nn.Module) -> None:
    """Replace each depthwise convolution with stride by ``StridedDepthwiseConv``; names and weights stay."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and child.groups == child.in_channels > 1 and max(child.stride) > 1:
                quick = StridedDepthwiseConv(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size,  # type: ignore[arg-type]  # stubs say a tuple of any length
                    stride=child.stride,  # type: ignore[arg-type]
                    padding=child.padding,  # type: ignore[arg-type]
                    dilation=child.dilation,  # type: ignore[arg-type]
                    groups=child.groups,
                    bias=child.bias is not None,
                    padding_mode=child.padding_mode,
                    device="meta",
                )
                quick.weight, quick.bias = child.weight, child.bias
                setattr(parent, name, quick)


def initialize(network: nn.Module) -> None:
    """Draw weights for ReLU networks (He 2015): normal by fan-out for convolutions, by fan-in where transposed.

    Biases start at 0, normalisation at the identity. A depthwise convolution's fan-out is taken per group.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            # Kernel and stride are equal here, so each output sums over the input channels once.
            nn.init.normal_(module.weight, std=(2.0 / module.in_channels) ** 0.5)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def initialize_head(head: nn.Conv2d, *, std: float = 0.01) -> None:
    """Start a 1×1 head near zero, so that the first loss is that of equal class shares."""
    nn.init.normal_(head.weight, std=std)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def upsample_like(features: Tensor, other: Tensor) -> Tensor:
    """Resize (N, C, h, w) bilinearly to the height and width of ``other``."""
    return nn.functional.interpolate(features, size=other.shape[-2:], mode="bilinear", align_corners=False)
