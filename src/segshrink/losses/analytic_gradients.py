"""Losses whose gradient is known in closed form: one array is kept for the backward pass instead of three or more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_gradient(student: Tensor, loss: Tensor, gradient: Tensor, factor: Tensor | float = 1.0) -> Tensor:
    """Return ``loss``, whose derivative by ``student`` autograd takes to be ``factor · gradient``.

    Differentiable once. The gradient is cast to the student's type.

    Args:
        student: What the loss is a function of, of any shape.
        loss: Scalar, computed without autograd.
        gradient: Of the student's shape.
        factor: Scalar; given apart, so that ``gradient`` need not be multiplied twice.
    """
    factor = torch.as_tensor(factor, dtype=gradient.dtype, device=gradient.device)
    result: Tensor = _WithGradient.apply(student, loss, gradient, factor)
    return result


def softmax_backward(probability: Tensor, derivative: Tensor) -> Tensor:
    """Turn the derivative by softmax probabilities over dimension 1 into that by logits; overwrites ``derivative``."""
    derivative.mul_(probability)
    return derivative.addcmul_(probability, derivative.sum(dim=1, keepdim=True), value=-1)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, loss: Tensor, gradient: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, factor)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        gradient, factor = ctx.saved_tensors
        return gradient * (outputs[0] * factor), None, None, None
