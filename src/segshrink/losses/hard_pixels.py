"""Losses against true labels that look at hard pixels more than at easy ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
from segshrink.losses.shapes import computing_dtype, valid_pixels


def focal(student: Tensor, target: Tensor, *, gamma: float = 2.0, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Focal loss: cross-entropy that fades where the network is right, mean over valid pixels; 0 when none is valid.

    ``(1 − p_y)^γ · (−log p_y)`` with ``p = softmax(student)`` and y the true class.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        gamma: γ ≥ 0; the larger, the less an easy pixel counts. 0 is cross-entropy.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
        ConfigError: ``gamma`` is negative.

    Source:
        Lin et al. 2017 (arXiv:1708.02002), without its weights α of classes.
    """
    if not gamma >= 0:
        raise ConfigError(f"gamma of focal must be at least 0, found {gamma}")
    with torch.autocast(student.device.type, enabled=False):
        surprise = _surprise(student, target, ignore_index)
        wrong = -torch.expm1(-surprise)
        # The power's slope is infinite at 0 for γ below 1, where the product's is not.
        return (wrong.clamp(min=torch.finfo(wrong.dtype).tiny) ** gamma * surprise).sum() / max(1, len(surprise))


def ohem_cross_entropy(
    student: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    least: float = 1 / 16,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Cross-entropy of the hard pixels alone (online hard example mining), their mean; 0 when no pixel is valid.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        threshold: Pixels whose true class has a probability below it are hard, in (0, 1].
        least: Share of the valid pixels, those with the lowest probabilities, that counts in any case, in (0, 1].
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0.

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
        ConfigError: ``threshold`` or ``least`` is out of its range.

    Source:
        Shrivastava et al. 2016 (arXiv:1604.03540); for pixels, with both limits: mmsegmentation's OHEMPixelSampler.
    """
    for name, value in (("threshold", threshold), ("least", least)):
        if not 0 < value <= 1:
            raise ConfigError(f"{name} of ohem_cross_entropy must be above 0 and at most 1, found {value}")
    with torch.autocast(student.device.type, enabled=False):
        surprise = _surprise(student, target, ignore_index)
        if not len(surprise):
            return surprise.sum()
        hardest = surprise.topk(math.ceil(least * len(surprise)), sorted=False).values
        return surprise[surprise >= hardest.min().clamp(max=-math.log(threshold))].mean()


def _surprise(student: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Return ``−log p_y`` of each valid pixel, (P,)."""
    logits = student.to(computing_dtype(student))
    valid = valid_pixels(target, logits, ignore_index=ignore_index)
    return F.cross_entropy(logits, target.long(), ignore_index=ignore_index, reduction="none")[valid]
