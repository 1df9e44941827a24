"""Distillation channel by channel: where in the image a class or a feature is strong."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.losses.analytic_gradients import with_gradient
from segshrink.losses.shapes import aligned, check_temperature


def channel_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Kullback-Leibler divergence between the places where a channel is strong, mean over images and channels (CWD).

    ``T² / (N·C) · Σ_{n,c} Σ_i q_T log(q_T / q_S)`` with ``q = softmax(z / T)`` over the valid positions i of one
    channel of one image. Differentiable (once) in ``student`` only. Computed in float32 (float64 stays), also under
    autocast. N·C counts only what can be compared: images with a valid position, and channels that the teacher doesn't
    exclude everywhere (logits -inf); 0 when nothing is left.

    Args:
        student: Logits or features (N, C, H, W).
        teacher: Logits or features (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); positions equal to ``ignore_index`` leave the softmax of both sides. Labels of
            another size (for features) are resized to the nearest. None: every position counts.
        temperature: T > 0; larger is softer.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``temperature`` isn't positive.

    Source:
        Shu et al. 2021 (arXiv:2011.13256); reduction of mmrazor's ``ChannelWiseDivergence``.
    """
    check_temperature("channel_kl", temperature)
    if target is not None and target.dim() == 3:
        target = _resized_labels(target, (student.shape[2], student.shape[3]))
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        own, teacher, valid = aligned(student, teacher, target, ignore_index=ignore_index)
        loss, gradient, factor = _divergence(own, teacher, valid, temperature)
    return with_gradient(student, loss, gradient, factor)


def _divergence(
    student: Tensor, teacher: Tensor, valid: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    floor = torch.finfo(student.dtype).min
    student_ncp = (student / temperature).flatten(2)
    teacher_ncp = (teacher / temperature).flatten(2)
    if valid is not None:
        ignored = ~valid.flatten(1).unsqueeze(1)
        student_ncp.masked_fill_(ignored, floor)
        teacher_ncp.masked_fill_(ignored, floor)
    # A channel that is as low as can be wherever it may be looked at says nothing about places.
    empty = teacher_ncp.amax(dim=2, keepdim=True) <= floor / (2 * max(temperature, 1))
    log_student = torch.log_softmax(student_ncp, dim=2)
    log_teacher = torch.log_softmax(teacher_ncp, dim=2)
    probability = log_teacher.exp()
    # Where the teacher is -inf, or nothing is valid, 0 · log 0 = 0, not NaN.
    log_teacher.clamp_(min=floor)
    divergence = log_teacher.sub_(log_student).mul_(probability).sum(dim=2, keepdim=True).masked_fill_(empty, 0)
    gradient = log_student.exp_().sub_(probability).masked_fill_(empty, 0)
    count = (~empty).sum().clamp_(min=1).to(student.dtype)
    return divergence.sum() * temperature**2 / count, gradient.view(student.shape), temperature / count


def _resized_labels(target: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(target.shape[1:]) == size:
        return target
    return F.interpolate(target.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1).to(target.dtype)
