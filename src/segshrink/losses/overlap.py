"""Distillation by overlap: the Jaccard index between two soft segmentations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
from segshrink.losses.analytic_gradients import softmax_backward, with_gradient
from segshrink.losses.shapes import aligned, at_temperature, check_temperature


def soft_jaccard(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    classes: Literal["all", "present"] = "all",
    smooth: float = 1e-3,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Jaccard metric loss between the student's and the teacher's probabilities, mean over classes (JML).

    ``1 − (tp + ε) / (tp + α·fp + β·fn + ε)`` per class, with ``tp = Σ min(p, q) = (Σ p + Σ q − Σ |p − q|) / 2``,
    ``fp = Σ p − tp`` and ``fn = Σ q − tp`` over the valid pixels of the batch, ``p = softmax(student)``, ``q =
    softmax(teacher / T)`` and ε = ``smooth``. Unlike the product form it is 0 where p equals q. Differentiable (once)
    in ``student`` only. Computed in float32 (float64 stays), also under autocast; 0 when no pixel is valid.

    Args:
        student: Logits (N, C, H, W).
        teacher: Logits (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); pixels equal to ``ignore_index`` don't count. None: every pixel counts.
        temperature: T > 0 of the teacher alone; larger is softer.
        alpha: Weight ≥ 0 of what the student sees and the teacher doesn't; with ``beta`` 1 each Jaccard, ½ each Dice.
        beta: Weight ≥ 0 of what the teacher sees and the student doesn't.
        classes: "all", or only those "present": which the teacher finds most likely at some valid pixel. Of many
            classes, few of them in a batch, those that are not there outweigh the others: the smaller the area, the
            steeper its ratio.
        smooth: Pixels ≥ 0 added to both sides of the ratio; 1e-3 is the default of the reference code, 1 what its
            published configurations say. The more, the less a class counts of which a batch holds few pixels.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar in [0, 1] (for ``alpha`` and ``beta`` of at least 0).

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``temperature`` isn't positive, ``alpha``, ``beta`` or ``smooth`` is negative, or ``classes`` is
            neither.

    Source:
        Wang et al. 2023 (arXiv:2302.05666); alpha, beta and the choice of classes ("active classes"): JDTLosses.
    """
    check_temperature("soft_jaccard", temperature)
    if not (alpha >= 0 and beta >= 0):
        raise ConfigError(f"alpha and beta of soft_jaccard must be at least 0, found {alpha} and {beta}")
    if not smooth >= 0:
        raise ConfigError(f"smooth of soft_jaccard must be at least 0, found {smooth}")
    if classes not in ("all", "present"):
        raise ConfigError(f"classes of soft_jaccard must be 'all' or 'present', found {classes!r}")
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        own, teacher, valid = aligned(student, teacher, target, ignore_index=ignore_index)
        counted_c = _present(teacher, valid) if classes == "present" else own.new_ones(own.shape[1])
        loss, gradient = _metric_loss(own, teacher, valid, counted_c, temperature, alpha, beta, smooth)
    return with_gradient(student, loss, gradient)


def _present(teacher: Tensor, valid: Tensor | None) -> Tensor:
    """Return 1 per class that is the most likely one at some valid pixel, else 0."""
    likely = torch.max(teacher, dim=1).indices
    if valid is not None:
        likely = likely[valid]
    return torch.bincount(likely.flatten(), minlength=teacher.shape[1]).clamp(max=1).to(teacher.dtype)


def _metric_loss(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None,
    counted_c: Tensor,
    temperature: float,
    alpha: float,
    beta: float,
    smooth: float,
) -> tuple[Tensor, Tensor]:
    pixels = (0, 2, 3)
    share_c = counted_c / counted_c.sum().clamp(min=1)
    probability = torch.softmax(student, dim=1)
    other = torch.softmax(at_temperature(teacher, temperature), dim=1)
    if valid is not None:
        ignored = ~valid.unsqueeze(1)
        probability.masked_fill_(ignored, 0)
        other.masked_fill_(ignored, 0)
    student_area_c, teacher_area_c = probability.sum(pixels), other.sum(pixels)
    shared_c = torch.minimum(probability, other).sum(pixels)
    hits_c = shared_c + smooth
    all_c = hits_c + alpha * (student_area_c - shared_c) + beta * (teacher_area_c - shared_c)
    if smooth == 0:  # a class that neither sees: nothing is missed, and nothing is divided by 0
        hits_c, all_c = (torch.where(all_c > 0, value, 1) for value in (hits_c, all_c))
    loss = ((1 - hits_c / all_c) * share_c).sum()
    # Derivative by a probability: one number per class where it exceeds the teacher's, another where it falls short,
    # their mean where they are equal.
    above_c = alpha * hits_c / all_c**2 * share_c
    below_c = ((1 - beta) * hits_c - all_c) / all_c**2 * share_c
    middle_c, half_c = ((above_c + below_c) / 2, (above_c - below_c) / 2)
    derivative = torch.sub(probability, other, out=other).sign_()
    derivative.mul_(half_c.view(-1, 1, 1)).add_(middle_c.view(-1, 1, 1))
    return loss, softmax_backward(probability, derivative)
