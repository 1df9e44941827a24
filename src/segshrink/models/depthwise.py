"""Depthwise convolutions with stride that train quickly in bf16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StridedDepthwiseConv(nn.Conv2d):
    """A depthwise convolution with stride whose input gradient is computed in float32 under CPU autocast.

    In bf16 that gradient takes oneDNN 3 to 30 times as long as in float32 (measured on a Zen 4 with AVX512-BF16,
    torch 2.15, 96 to 192 channels), while the rest is quicker in bf16. Anywhere else it is a plain convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        narrow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not (narrow and input.device.type == "cpu" and input.requires_grad and self.bias is None):
            return super().forward(input)
        output: Tensor = _WideInputGradient.apply(
            input.to(torch.bfloat16), self.weight.to(torch.bfloat16), self.stride, self.padding, self.dilation
        )
        return output


class _WideInputGradient(torch.autograd.Function):
    """Depthwise convolution of bf16 tensors; the input's gradient goes through float32."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = (stride, padding, dilation)
        return nn.functional.conv2d(input, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        gradient, groups = gradients[0], len(weight)
        input_gradient = weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.ops.aten.convolution_backward(
                gradient, input, weight, None, stride, padding, dilation, False, (0, 0), groups, (False, True, False)
            )[1]
        if ctx.needs_input_grad[0]:
            # What a stride leaves over at the right and bottom edge belongs to no output, yet is part of the input.
            rest = [
                size - ((out - 1) * step - 2 * pad + spread * (kernel - 1) + 1)
                for size, out, step, pad, spread, kernel in zip(
                    input.shape[2:], gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
                )
            ]
            with torch.autocast("cpu", enabled=False):
                input_gradient = nn.functional.conv_transpose2d(
                    gradient.float(), weight.float(), None, stride, padding, rest, groups, dilation
                ).to(input.dtype)
        return input_gradient, weight_gradient, None, None, None


def quicken_strided_depthwise(network: nn.Module) -> None:
    """Replace each depthwise convolution with stride by ``StridedDepthwiseConv``; names and weights stay."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _is_strided_depthwise(child):
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


def _is_strided_depthwise(convolution: nn.Conv2d) -> bool:
    depthwise = convolution.groups == convolution.in_channels == convolution.out_channels > 1
    zero_padded = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return depthwise and zero_padded and max(convolution.stride) > 1
