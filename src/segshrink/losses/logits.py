"""Distillation pixel by pixel: the Kullback-Leibler divergence of class distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ModelError
from segshrink.losses.analytic_gradients import with_gradient
from segshrink.losses.shapes import aligned, at_temperature, check_temperature, number_of

# Keeps the division of the z-score finite where all logits of a pixel are equal (Sun et al. 2024, reference code).
STANDARD_DEVIATION_FLOOR = 1e-7


def pixel_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    weights: Tensor | None = None,
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
        weights: Weight of each pixel (N, H, W), ≥ 0: the mean over valid pixels becomes a weighted mean, 0 where all
            weights are 0. None: all pixels weigh the same.
        temperature: T > 0; larger is softer.
        standardize: Replace logits of each pixel by their z-score over the classes first (unbiased deviation), so
            that the student need not copy the teacher's range.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher, target and weights contradict each other.
        ConfigError: ``temperature`` isn't positive.

    Example:
        >>> student, teacher = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
        >>> teacher[:, 0] = 2.0
        >>> pixel_kl(student, teacher, temperature=2.0)
        tensor(0.4438)

    Source:
        Hinton et al. 2015 (arXiv:1503.02531); per pixel: Liu et al. 2019 (arXiv:1903.04197); z-score: Sun et al. 2024
        (arXiv:2403.01427).
    """
    check_temperature("pixel_kl", temperature)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher, valid = aligned(student, teacher, target, ignore_index=ignore_index)
        if weights is not None:
            weights = _checked_weights(weights, student)
        if standardize:
            student, teacher = _standardized(student), _standardized(teacher)
        with torch.no_grad():
            loss, gradient, factor = _divergence(student, teacher, valid, weights, temperature)
        return with_gradient(student, loss, gradient, factor)


def _checked_weights(weights: Tensor, student: Tensor) -> Tensor:
    expected = (student.shape[0], *student.shape[2:])
    if tuple(weights.shape) != expected:
        raise ModelError(
            f"pixel weights of shape {tuple(weights.shape)} don't fit logits of shape {tuple(student.shape)}; "
            f"give weights of shape {expected}"
        )
    return weights.detach().to(student.dtype)


def _standardized(logits: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(logits, dim=1, correction=1, keepdim=True)
    return (logits - mean) / (deviation + STANDARD_DEVIATION_FLOOR)


def _divergence(
    student: Tensor, teacher: Tensor, valid: Tensor | None, weights: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its gradient up to a factor, p_S − p_T, and that factor, T / number of pixels."""
    log_student = torch.log_softmax(at_temperature(student, temperature), dim=1)
    log_teacher = torch.log_softmax(at_temperature(teacher, temperature), dim=1)
    probability = log_teacher.exp()
    # A class that the teacher excludes (logit -inf) adds 0 · log 0 = 0, not NaN.
    log_teacher.clamp_(min=torch.finfo(log_teacher.dtype).min)
    divergence = log_teacher.sub_(log_student).mul_(probability).sum(dim=1)
    gradient = log_student.exp_().sub_(probability)
    if valid is not None:
        ignored = ~valid
        divergence.masked_fill_(ignored, 0)
        gradient.masked_fill_(ignored.unsqueeze(1), 0)
    if weights is None:
        count = number_of(valid, student).clamp_(min=1)
    else:
        divergence.mul_(weights)
        gradient.mul_(weights.unsqueeze(1))
        count = (weights if valid is None else weights * valid).sum()
        count = torch.where(count > 0, count, 1)
    return divergence.sum() * (temperature**2) / count, gradient, temperature / count
