"""Distillation that treats a pixel's true class and all the others apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ModelError
from segshrink.losses.analytic_gradients import with_gradient
from segshrink.losses.shapes import aligned, at_temperature, check_temperature, number_of


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Kullback-Leibler divergence, split into "the true class or not" and "which of the others" (DKD).

    ``T² · mean over valid pixels of [α KL(b_T ‖ b_S) + β KL(q_T ‖ q_S)]`` with ``b = (p_y, 1 − p_y)``, ``p = softmax(z
    / T)``, y the true class, and ``q = softmax(z / T)`` over the C − 1 other classes. Differentiable (once) in
    ``student`` only. Computed in float32 (float64 stays), also under autocast; 0 when no pixel is valid.

    Args:
        student: Logits (N, C, H, W), C ≥ 2.
        teacher: Logits (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); pixels equal to ``ignore_index`` don't count.
        temperature: T > 0; larger is softer.
        alpha: Weight of the true class.
        beta: Weight of the others; unlike in plain distillation it doesn't shrink where the teacher is sure.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other, or there is one class only.
        ConfigError: ``temperature`` isn't positive.

    Source:
        Zhao et al. 2022 (arXiv:2203.08679), code of mdistiller.
    """
    check_temperature("decoupled_kl", temperature)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        own_logits, other_logits, true, ignored = _prepared("decoupled_kl", student, teacher, target, ignore_index)
        own = _split(at_temperature(own_logits, temperature), true)
        other = _split(at_temperature(other_logits, temperature), true)
        rest_weight = beta * other.has_rest

        target_part = torch.sigmoid(other.odds) * (F.logsigmoid(other.odds) - F.logsigmoid(own.odds))
        target_part += torch.sigmoid(-other.odds) * (F.logsigmoid(-other.odds) - F.logsigmoid(-own.odds))
        surplus = alpha * (torch.sigmoid(own.odds) - torch.sigmoid(other.odds))

        other_rest = other.log_rest.exp()
        rest_part = other.log_rest.sub_(own.log_rest).mul_(other_rest).sum(dim=1, keepdim=True)
        gradient = own.log_rest.exp_().mul_(rest_weight - surplus).sub_(other_rest.mul_(rest_weight))
        gradient.scatter_(1, true, surplus).masked_fill_(ignored, 0)

        divergence = (alpha * target_part + rest_weight * rest_part).masked_fill_(ignored, 0)
        count = number_of(~ignored, own_logits).clamp_(min=1)
        loss = divergence.sum() * temperature**2 / count
    return with_gradient(student, loss, gradient, temperature / count)


def normalized_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.5,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Soft cross-entropy of the true class plus that of the others, normalized among themselves (NKD).

    ``mean over valid pixels of [−p_T(y) log p_S(y) − γ T² Σ_{c≠y} q_T(c) log q_S(c)]`` with ``p = softmax(z)``, y the
    true class, and ``q = softmax(z / T)`` over the C − 1 other classes. A cross-entropy, not a divergence: its minimum
    isn't 0. Differentiable (once) in ``student`` only. Computed in float32 (float64 stays), also under autocast; 0 when
    no pixel is valid.

    Args:
        student: Logits (N, C, H, W), C ≥ 2.
        teacher: Logits (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); pixels equal to ``ignore_index`` don't count.
        temperature: T > 0 of the others; larger is softer.
        gamma: Weight of the others.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other, or there is one class only.
        ConfigError: ``temperature`` isn't positive.

    Source:
        Yang et al. 2023 (arXiv:2303.13005), code of cls_KD.
    """
    check_temperature("normalized_kl", temperature)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        own_logits, other_logits, true, ignored = _prepared("normalized_kl", student, teacher, target, ignore_index)
        own = _split(at_temperature(own_logits, temperature), true)
        other = _split(at_temperature(other_logits, temperature), true)
        plain_own = own if temperature == 1 else _split(own_logits, true)
        other_odds = other.odds if temperature == 1 else _split(other_logits, true).odds
        rest_weight = gamma * temperature * other.has_rest

        other_true = torch.sigmoid(other_odds)
        target_part = -other_true * F.logsigmoid(plain_own.odds)
        missing = other_true * torch.sigmoid(-plain_own.odds)

        other_rest = other.log_rest.exp_()
        rest_part = -(other_rest * own.log_rest).sum(dim=1, keepdim=True)
        if temperature == 1:
            gradient = own.log_rest.exp_().mul_(rest_weight + missing)
        else:
            gradient = own.log_rest.exp_().mul_(rest_weight).addcmul_(plain_own.log_rest.exp_(), missing)
        gradient.sub_(other_rest.mul_(rest_weight)).scatter_(1, true, -missing).masked_fill_(ignored, 0)

        entropy = (target_part + temperature * rest_weight * rest_part).masked_fill_(ignored, 0)
        count = number_of(~ignored, own_logits).clamp_(min=1)
        loss = entropy.sum() / count
    return with_gradient(student, loss, gradient, 1 / count)


class _Split(NamedTuple):
    """A distribution as "the true class or not" and "which of the others".

    Attributes:
        odds: (N, 1, H, W), logarithm of the true class's probability over that of all others together.
        log_rest: (N, C, H, W), log-softmax over the others; far below 0 but finite at the true class.
        has_rest: Bool (N, 1, H, W), False where every other class is excluded (logits -inf).
    """

    odds: Tensor
    log_rest: Tensor
    has_rest: Tensor


def _prepared(
    loss: str, student: Tensor, teacher: Tensor, target: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both logits, the true classes (N, 1, H, W), 0 where ignored, and where that is."""
    own, other, _ = aligned(student, teacher, target, ignore_index=ignore_index)
    if own.shape[1] < 2:
        raise ModelError(f"{loss} needs at least two classes, found logits of shape {tuple(own.shape)}; use binary_kl")
    ignored = (target == ignore_index).unsqueeze(1)
    return own, other, target.long().unsqueeze(1).masked_fill(ignored, 0), ignored


def _split(logits: Tensor, true: Tensor) -> _Split:
    # Far below every logit, and still finite when one of them is subtracted from another.
    floor = torch.finfo(logits.dtype).min / 4
    rest = logits.scatter(1, true, -torch.inf)
    log_sum = rest.logsumexp(dim=1, keepdim=True)
    has_rest = log_sum > floor / 2
    log_sum.clamp_(min=floor)
    odds = (logits.gather(1, true) - log_sum).clamp_(min=floor, max=-floor)
    return _Split(odds, rest.sub_(log_sum).clamp_(min=floor), has_rest)
