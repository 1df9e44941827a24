"""Pieces that our own networks share."""

from __future__ import annotations

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
    """Depthwise 3×3 and pointwise 1×1 in one, then batch normalization and ReLU, as in DeepLabv3+ (Chen 2018).

    Nothing stands between the two: normalizing and clipping there would cost as much time as both convolutions.

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


def initialize(network: nn.Module) -> None:
    """Draw weights for ReLU networks (He 2015): normal by fan-out for convolutions, by fan-in where transposed.

    Biases start at 0, normalization at the identity. A depthwise convolution's fan-out is taken per group.
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


def initialize_head(head: nn.Conv2d, *, std: float = 0.1) -> None:
    """Start a 1×1 head small, so that the first loss is nearly that of equal class shares."""
    nn.init.normal_(head.weight, std=std)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def upsample_like(features: Tensor, other: Tensor) -> Tensor:
    """Resize (N, C, h, w) bilinearly to the height and width of ``other``."""
    return nn.functional.interpolate(features, size=other.shape[-2:], mode="bilinear", align_corners=False)
