"""Gradients of depthwise convolutions under bf16 autocast, against those of float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segshrink.training.depthwise import QuickDepthwise

GEOMETRIES = [
    (3, 2, 1, 1, (16, 16)),
    (3, 2, 1, 1, (15, 18)),
    (5, 2, 2, 1, (12, 13)),
    (5, 1, 2, 1, (9, 12)),
    (3, 1, 2, 2, (13, 14)),
    (3, 2, 2, 2, (13, 14)),
    (3, 3, 1, 1, (14, 15)),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "size"), GEOMETRIES)
def test_gradients_equal_the_plain_ones(
    kernel: int, stride: int, padding: int, dilation: int, size: tuple[int, int], bias: bool
) -> None:
    convolution = nn.Conv2d(16, 16, kernel, stride, padding, dilation, groups=16, bias=bias)
    plain = torch.randn(2, 16, *size, requires_grad=True)
    expected = convolution(plain)
    gradient = torch.randn_like(expected)
    parameters = list(convolution.parameters())
    gradients = torch.autograd.grad(expected, (plain, *parameters), gradient)
    with torch.autocast("cpu", torch.bfloat16), QuickDepthwise():
        output = convolution(plain)
    assert output.dtype == torch.bfloat16
    assert output.grad_fn is not None
    assert "WideGradients" in output.grad_fn.name()
    found = torch.autograd.grad(output, (plain, *parameters), gradient.bfloat16())
    for value, other in zip((output.float(), *found), (expected, *gradients), strict=True):
        # bf16 has 8 bits of mantissa: each rounding errs by up to 0.4 %.
        assert value.dtype == other.dtype
        assert (value - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, stride=2, groups=2),
        nn.Conv2d(8, 16, 5, stride=2),
    ],
    ids=["neither strided nor wide", "padding in words", "groups", "dense"],
)
def test_others_stay_as_they_are(convolution: nn.Conv2d) -> None:
    images = torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = convolution(images)
        with QuickDepthwise():
            found = convolution(images)
    assert torch.equal(found, expected)
    assert found.grad_fn is not None
    assert "WideGradients" not in found.grad_fn.name()


def test_without_autocast_it_is_a_plain_convolution() -> None:
    convolution = nn.Conv2d(8, 8, 3, stride=2, groups=8)
    images = torch.randn(1, 8, 9, 9)
    with QuickDepthwise():
        found = convolution(images)
    assert torch.equal(found, convolution(images))
    assert found.dtype == torch.float32
