"""Depthwise convolutions whose gradients are computed quickly in bf16 on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_Pair = tuple[int, int]


class QuickDepthwise(TorchFunctionMode):
    """Computes some gradients of depthwise convolutions in float32, in a block under bf16 autocast on a CPU.

    oneDNN takes 3 to 100 times as long in bf16 as in float32 for the input's gradient where there is a stride, and for
    the weights' where the kernel is wider than 3 pixels or dilated; everything else is quicker in bf16 (measured on a
    Zen 4 with AVX512-BF16, torch 2.15, 64 to 1,248 channels of 8² to 129² pixels). Every network's
    ``torch.nn.functional.conv2d`` is met; on other devices and in other precisions nothing changes.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or compute what a depthwise ``conv2d`` does."""
        return (_conv2d if func is torch.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    depthwise = groups == weight.shape[0] == input.shape[-3] > 1
    narrow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if depthwise and narrow and input.ndim == 4 and input.device.type == "cpu" and not isinstance(padding, str):
        geometry = _pair(stride), _pair(padding), _pair(dilation)
        if torch.is_grad_enabled() and (_is_strided(geometry) or _is_wide(weight, geometry)):
            output: Tensor = _WideGradients.apply(input, weight, bias, geometry)
            return output
    return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(value: int | Sequence[int]) -> _Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _is_strided(geometry: tuple[_Pair, _Pair, _Pair]) -> bool:
    return max(geometry[0]) > 1


def _is_wide(weight: Tensor, geometry: tuple[_Pair, _Pair, _Pair]) -> bool:
    return max(weight.shape[2:]) > 3 or (max(geometry[2]) > 1 and max(weight.shape[2:]) > 1)


class _WideGradients(torch.autograd.Function):
    """A depthwise convolution in bf16, one or both of whose gradients go through float32."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[_Pair, _Pair, _Pair]
    ) -> Tensor:
        narrow = input.to(torch.bfloat16)
        ctx.save_for_backward(narrow, weight)
        ctx.geometry, ctx.dtype = geometry, input.dtype
        return torch.conv2d(
            narrow, weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16), *geometry, len(weight)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        geometry, groups, gradient = ctx.geometry, len(weight), gradients[0]
        input_gradient = weight_gradient = bias_gradient = None

        def convolution_backward(kind: torch.dtype, images: Tensor, asked: tuple[bool, bool, bool]) -> Any:
            values = gradient.to(kind), images, weight.to(kind)
            return torch.ops.aten.convolution_backward(*values, [groups], *geometry, False, (0, 0), groups, asked)

        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                kind = torch.float32 if _is_wide(weight, geometry) else torch.bfloat16
                _, weight_gradient, bias_gradient = convolution_backward(
                    kind, input.to(kind), (False, True, ctx.needs_input_grad[2])
                )
            if ctx.needs_input_grad[0]:
                kind = torch.float32 if _is_strided(geometry) else torch.bfloat16
                images = torch.empty_like(input, dtype=kind)  # its values don't matter
                input_gradient = convolution_backward(kind, images, (True, False, False))[0].to(ctx.dtype)
        return input_gradient, weight_gradient, bias_gradient, None
