"""Distillation losses on logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
from segshrink.losses.shapes import computing_dtype, like_student, valid_pixels

# Keeps the division of the z-score finite where all logits of a pixel are equal (Sun et al. 2024, reference code).
STANDARD_DEVIATION_FLOOR = 1e-7


def pixel_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    standardize: bool = False,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Kullback-Leibler divergence of the student's class distribution from the teacher's, pixel by pixel.

    ``T² · mean over valid pixels of Σ_c p_T log(p_T / p_S)`` with ``p = softmax(z / T)`` over the classes. The factor
    T² keeps the size of the gradient independent of the temperature. Differentiable (once) in ``student`` only.
    Computed in float32 (float64 when the student is float64), also under autocast; 0 when no pixel is valid.

    Args:
        student: Logits (N, C, H, W).
        teacher: Logits (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); pixels equal to ``ignore_index`` don't count. None: every pixel counts.
        temperature: T > 0; larger is softer.
        standardize: Replace logits of each pixel by their z-score over the classes first (unbiased deviation), so
            that the student need not copy the teacher's range.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``temperature`` isn't positive.

    Source:
        Hinton et al. 2015 (arXiv:1503.02531); per pixel: Liu et al. 2019 (arXiv:1903.04197); z-score: Sun et al. 2024
        (arXiv:2403.01427).
    """
    if not temperature > 0:
        raise ConfigError(f"temperature of pixel_kl must be above 0, found {temperature}")
    with torch.autocast(student.device.type, enabled=False):
        dtype = computing_dtype(student)
        student = student.to(dtype)
        teacher = like_student(teacher.detach().to(dtype), student)
        valid = None if target is None else valid_pixels(target, student, ignore_index=ignore_index)
        if standardize:
            student, teacher = _standardized(student), _standardized(teacher)
        result: Tensor = _PixelKL.apply(student, teacher, valid, float(temperature))
        return result


def _standardized(logits: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(logits, dim=1, correction=1, keepdim=True)
    return (logits - mean) / (deviation + STANDARD_DEVIATION_FLOOR)


class _PixelKL(torch.autograd.Function):
    """The loss with its gradient in closed form, T · (p_S − p_T) / n: one array is kept instead of three."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, valid: Tensor | None, temperature: float) -> Tensor:
        log_student = torch.log_softmax(student if temperature == 1 else student / temperature, dim=1)
        log_teacher = torch.log_softmax(teacher if temperature == 1 else teacher / temperature, dim=1)
        probability = log_teacher.exp()
        # A class that the teacher excludes (logit -inf) adds 0 · log 0 = 0, not NaN.
        log_teacher.clamp_(min=torch.finfo(log_teacher.dtype).min)
        divergence = log_teacher.sub_(log_student).mul_(probability).sum(dim=1)
        gradient = log_student.exp_().sub_(probability)
        if valid is None:
            count = torch.tensor(max(divergence.numel(), 1), dtype=divergence.dtype, device=divergence.device)
        else:
            ignored = ~valid
            divergence.masked_fill_(ignored, 0)
            gradient.masked_fill_(ignored.unsqueeze(1), 0)
            count = valid.sum().clamp_(min=1).to(divergence.dtype)
        ctx.save_for_backward(gradient, temperature / count)
        return divergence.sum() * (temperature**2) / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        gradient, scale = ctx.saved_tensors
        return gradient * (outputs[0] * scale), None, None, None
