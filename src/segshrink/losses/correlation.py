"""Distillation by correlation: the order and proportion of probabilities instead of their exact values."""

from __future__ import annotations

import torch
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.losses.analytic_gradients import softmax_backward, with_gradient
from segshrink.losses.shapes import aligned, at_temperature, check_temperature, number_of

# Added to the product of two lengths (Huang et al. 2022, reference code).
LENGTH_FLOOR = 1e-8


def dist(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """One minus the Pearson correlation of probabilities, over the classes of a pixel and over the pixels of a class.

    ``T² [β (1 − mean over pixels of ρ(p_S[i, :], p_T[i, :])) + γ (1 − mean over classes of ρ(p_S[:, c], p_T[:, c]))]``
    with ``p = softmax(z / T)`` as a matrix of all valid pixels of the batch by classes. ρ of values that are all equal
    is 0. Differentiable (once) in ``student`` only. Computed in float32 (float64 stays), also under autocast; 0 when no
    pixel is valid.

    With two classes the correlation within a pixel is 1 or −1 whatever the probabilities, so β teaches little there.

    Args:
        student: Logits (N, C, H, W).
        teacher: Logits (N, C, h, w); resized bilinearly to (H, W) when the sizes differ.
        target: Labels (N, H, W); pixels equal to ``ignore_index`` don't count. None: every pixel counts.
        beta: Weight of the relation between the classes of a pixel.
        gamma: Weight of the relation between the pixels of a class.
        temperature: T > 0; larger is softer.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar from 0 to 2 T² (β + γ).

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``temperature`` isn't positive.

    Source:
        Huang et al. 2022 (arXiv:2205.10536); the segmentation code has no temperature, T² is the classification's.
    """
    check_temperature("dist", temperature)
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        own, teacher, valid = aligned(student, teacher, target, ignore_index=ignore_index)
        loss, gradient = _correlation_loss(own, teacher, valid, beta, gamma, temperature)
    return with_gradient(student, loss, gradient, temperature)


def _correlation_loss(
    student: Tensor, teacher: Tensor, valid: Tensor | None, beta: float, gamma: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient by ``student / T``, without T²."""
    classes = student.shape[1]
    probability = torch.softmax(at_temperature(student, temperature), dim=1)
    other = torch.softmax(at_temperature(teacher, temperature), dim=1)
    if valid is not None:
        ignored = ~valid.unsqueeze(1)
        probability.masked_fill_(ignored, 0)
        other.masked_fill_(ignored, 0)
    count = number_of(valid, student)
    pixels = count.clamp(min=1)

    # Within a pixel: the probabilities of its classes have the mean 1 / C.
    inner, own_share, other_share = _correlation(probability - 1 / classes, other - 1 / classes, (1,))
    within = inner if valid is None else inner * valid.unsqueeze(1)
    loss = beta * (1 - within.sum() / pixels)
    own_share, other_share = own_share * (beta / pixels), other_share * (beta / pixels)

    # Within a class: over all valid pixels.
    own_mean = probability.sum((0, 2, 3), keepdim=True) / pixels
    other_mean = other.sum((0, 2, 3), keepdim=True) / pixels
    own_centered, other_centered = probability - own_mean, other - other_mean
    if valid is not None:
        own_centered.masked_fill_(ignored, 0)
        other_centered.masked_fill_(ignored, 0)
    across, own_part, other_part = _correlation(own_centered, other_centered, (0, 2, 3))
    loss = loss + gamma * (1 - across.mean())
    own_part, other_part = own_part * (gamma / classes), other_part * (gamma / classes)

    # The constant of a pixel is lost on the way back through the softmax, so no 1 / C stands here.
    derivative = own_centered.mul_(own_part).sub_(other_centered.mul_(other_part))
    derivative.addcmul_(probability, own_share).addcmul_(other, other_share, value=-1)
    return loss * temperature**2 * (count > 0), softmax_backward(probability, derivative)


def _correlation(own: Tensor, other: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Correlate centered values over ``dim``; the derivative of minus it by ``own`` is a·own − b·other.

    Returns:
        The correlation, a and b, each with the dimensions of ``dim`` kept as 1.
    """
    product = own * other
    shared = product.sum(dim, keepdim=True)
    own_length = torch.mul(own, own, out=product).sum(dim, keepdim=True).sqrt_()
    other_length = torch.mul(other, other, out=product).sum(dim, keepdim=True).sqrt_()
    lengths = own_length * other_length + LENGTH_FLOOR
    correlation = shared / lengths
    own_factor = correlation * (other_length / lengths) / own_length.clamp(min=torch.finfo(own.dtype).tiny)
    return correlation, own_factor, 1 / lengths
