"""Activations that keep less for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class MemoryEfficientReLU6(nn.ReLU6):
    """A ReLU6 that keeps its result alone; torch's keeps a copy of its input as well, though computed in place.

    The next layer keeps the result anyway. Values and gradients are torch's, bit by bit.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Clip to [0, 6]."""
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(input)
        result: Tensor = _Clip.apply(input, self.inplace)
        return result


def use_memory_efficient_relu(network: nn.Module) -> None:
    """Let a network take less memory in training; its parameters, results and gradients stay what they are."""
    for module in network.modules():
        if type(module) is nn.ReLU6:
            module.__class__ = MemoryEfficientReLU6


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(input)
        result = input.clamp_(0, 6) if inplace else input.clamp(0, 6)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (result,) = ctx.saved_tensors
        # Where the input was clipped, the result lies on the border, where this derivative is 0 too.
        return torch.ops.aten.hardtanh_backward(outputs[0], result, 0, 6), None
