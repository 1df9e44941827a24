"""Losses of sigmoid logits: every channel says yes or no on its own, so that several may hold at one pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ModelError
from segshrink.losses.analytic_gradients import with_gradient
from segshrink.losses.shapes import at_temperature, check_temperature, computing_dtype, like_student


def binary_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Kullback-Leibler divergence of the student's yes or no from the teacher's, channel by channel.

    ``T² · mean over valid pixels and channels of [p_T log(p_T / p_S) + (1 − p_T) log((1 − p_T) / (1 − p_S))]`` with
    ``p = sigmoid(z / T)``. For one channel it equals ``pixel_kl`` of the two-class logits (0, z). Differentiable (once)
    in ``student`` only. Computed in float32 (float64 stays), also under autocast; 0 when nothing is valid.

    Args:
        student: Logits (N, K, H, W), one for each thing that may be there.
        teacher: Logits (N, K, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W) for all channels alike, or (N, K, H, W) for each; what equals ``ignore_index`` doesn't
            count. None: everything counts.
        temperature: T > 0; larger is softer.
        ignore_index: Label of what doesn't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``temperature`` isn't positive.
    """
    check_temperature("binary_kl", temperature)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        dtype = computing_dtype(student)
        own = at_temperature(student.to(dtype), temperature)
        other = at_temperature(like_student(teacher.to(dtype), student), temperature)
        probability = torch.sigmoid(other)
        divergence = F.binary_cross_entropy_with_logits(own, probability, reduction="none")
        divergence -= _entropy(other)
        gradient = torch.sigmoid(own).sub_(probability)
        count = _keep_valid(divergence, gradient, target, ignore_index)
        loss = divergence.sum() * temperature**2 / count
    return with_gradient(student, loss, gradient, temperature / count)


def binary_cross_entropy(student: Tensor, target: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Cross-entropy of yes or no, mean over valid pixels and channels; 0 when nothing is valid.

    ``−y log p − (1 − y) log(1 − p)`` with ``p = sigmoid(z)``. Differentiable (once). Computed in float32 (float64
    stays), also under autocast.

    Args:
        student: Logits (N, K, H, W), one for each thing that may be there.
        target: (N, K, H, W), 1 where it is there, 0 where not, ``ignore_index`` where that is unknown. For K = 1 also
            (N, H, W).
        ignore_index: Label of what doesn't count.

    Returns:
        Scalar ≥ 0; the value of ``torch.nn.functional.binary_cross_entropy_with_logits`` wherever nothing is ignored.

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
    """
    if student.dim() == 4 and student.shape[1] == 1 and target.dim() == 3:
        target = target.unsqueeze(1)
    if target.shape != student.shape:
        raise ModelError(
            f"labels of shape {tuple(target.shape)} don't fit logits of shape {tuple(student.shape)}; "
            "give one label, 0 or 1, for each logit"
        )
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        logits = student.to(computing_dtype(student))
        truth = target.to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        gradient = torch.sigmoid(logits).sub_(truth)
        count = _keep_valid(entropy, gradient, target, ignore_index)
        loss = entropy.sum() / count
    return with_gradient(student, loss, gradient, 1 / count)


def _entropy(logits: Tensor) -> Tensor:
    """Return the entropy of yes or no with these logits, exact far from 0 and 0 at ±inf."""
    # 1e4: so far out that the rarer answer's probability is 0 in every precision, and still finite.
    distance = logits.abs().clamp_(max=1e4)
    return F.softplus(-distance).addcmul_(distance, torch.sigmoid(-distance))


def _keep_valid(values: Tensor, gradient: Tensor, target: Tensor | None, ignore_index: int) -> Tensor:
    """Set ``values`` and ``gradient`` (N, K, H, W) to 0 where ignored; return how many are left, at least 1."""
    if target is None:
        return torch.tensor(max(values.numel(), 1), dtype=values.dtype, device=values.device)
    shape = tuple(values.shape)
    if tuple(target.shape) not in (shape, (shape[0], *shape[2:])):
        raise ModelError(
            f"labels of shape {tuple(target.shape)} don't fit logits of shape {shape}; "
            f"give labels of shape {(shape[0], *shape[2:])} or {shape}"
        )
    ignored = target == ignore_index
    if ignored.dim() == values.dim() - 1:
        ignored = ignored.unsqueeze(1)
    values.masked_fill_(ignored, 0)
    gradient.masked_fill_(ignored, 0)
    left = (~ignored).sum() * (values.shape[1] // ignored.shape[1])
    return left.clamp_(min=1).to(values.dtype)
