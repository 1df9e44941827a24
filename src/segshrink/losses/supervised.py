"""Losses against true labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
from segshrink.losses.analytic_gradients import softmax_backward, with_gradient
from segshrink.losses.shapes import computing_dtype, valid_pixels


def cross_entropy(
    student: Tensor,
    target: Tensor,
    *,
    class_weights: Sequence[float] | Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Cross-entropy, mean over valid pixels (weighted mean with class weights); 0 when no pixel is valid.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        class_weights: C weights ≥ 0; a pixel counts by the weight of its class.
        label_smoothing: Share in [0, 1] of the target spread evenly over the classes (Szegedy et al. 2016).
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar ≥ 0; the value of ``torch.nn.functional.cross_entropy`` wherever that is defined.

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
        ConfigError: The number of class weights isn't the number of classes.
    """
    with torch.autocast(student.device.type, enabled=False):
        logits = student.to(computing_dtype(student))
        valid = valid_pixels(target, logits, ignore_index=ignore_index)
        target = target.long()
        weights = None
        total_weight = valid.sum().to(logits.dtype)
        if class_weights is not None:
            weights = _checked_weights(class_weights, logits)
            total_weight = (weights[target.masked_fill(~valid, 0)] * valid).sum()
        summed = F.cross_entropy(
            logits,
            target,
            weight=weights,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        # Smoothing gives pixels of a class without weight a small loss of the others: no mean where nothing weighs.
        return torch.where(total_weight > 0, summed / total_weight.clamp(min=torch.finfo(logits.dtype).tiny), 0.0)


def jaccard(student: Tensor, target: Tensor, *, smooth: float = 0.0, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Soft Jaccard loss over the valid pixels of the batch; 0 when none is valid.

    ``1 − Σ p·y / (Σ p + Σ y − Σ p·y)`` per class, 0 for classes without a true pixel, mean over all C classes: as in
    segmentation-models-pytorch. Differentiable once.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        smooth: Added to numerator and denominator.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar in [0, 1].

    Raises:
        ModelError: Shapes of logits and labels contradict each other.

    Example:
        >>> jaccard(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
        tensor(0.2500)
    """
    return _overlap_loss(student, target, missed=1.0, smooth=smooth, ignore_index=ignore_index)


def dice(student: Tensor, target: Tensor, *, smooth: float = 0.0, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Soft Dice loss over the valid pixels of the batch; 0 when none is valid.

    ``1 − 2 Σ p·y / (Σ p + Σ y)`` per class, 0 for classes without a true pixel, mean over all C classes: as in
    segmentation-models-pytorch. Differentiable once.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        smooth: Added to numerator and denominator.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar in [0, 1].

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
    """
    return _overlap_loss(student, target, missed=0.5, smooth=smooth, ignore_index=ignore_index)


def lovasz(student: Tensor, target: Tensor, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Lovász-Softmax loss of segmentation-models-pytorch over the valid pixels of the batch; 0 when none is valid.

    The Lovász extension of the Jaccard loss, mean over the classes that have a true pixel.

    Args:
        student: Logits (N, C, H, W); computed in float32, also under autocast.
        target: Class indices (N, H, W).
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar in [0, 1].

    Raises:
        ModelError: Shapes of logits and labels contradict each other.

    Source:
        Berman et al. 2018 (arXiv:1705.08790).
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    with torch.autocast(student.device.type, enabled=False):
        logits, labels = _valid_columns(student, target, ignore_index)
        # The library knows no float64, and gives an empty array where no pixel is valid.
        result: Tensor = LovaszLoss(mode="multiclass")(logits.unsqueeze(-1).float(), labels.unsqueeze(-1))
        return result.sum().to(logits.dtype)


def _overlap_loss(student: Tensor, target: Tensor, *, missed: float, smooth: float, ignore_index: int) -> Tensor:
    """Return ``1 − (tp + ε) / (tp + m·(fp + fn) + ε)`` of classes with a true pixel, summed, over C.

    Labels stay numbers: as C arrays of 0 and 1 they take three times as long, and as much memory as the logits twice.

    Args:
        student: Logits (N, C, H, W).
        target: Class indices (N, H, W).
        missed: m, 1 of Jaccard's index and ½ of Dice's.
        smooth: ε.
        ignore_index: Label of pixels that don't count.
    """
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        logits = student.to(computing_dtype(student))
        valid = valid_pixels(target, logits, ignore_index=ignore_index)
        classes, everywhere = logits.shape[1], bool(valid.all())
        labels = (target if everywhere else target.masked_fill(~valid, 0)).long()
        probability = torch.softmax(logits, dim=1)
        if not everywhere:
            probability.masked_fill_(~valid.unsqueeze(1), 0)
        of_label = probability.gather(1, labels.unsqueeze(1)).flatten()
        predicted_c = probability.sum((0, 2, 3))
        true_c = torch.bincount(target[valid].flatten().long(), minlength=classes).to(logits.dtype)
        hits_c = torch.zeros_like(true_c).index_add_(0, labels.flatten(), of_label)
        above_c = hits_c + smooth
        below_c = hits_c + missed * (predicted_c + true_c - 2 * hits_c) + smooth
        share_c = (true_c > 0).to(logits.dtype) / classes
        below_c = torch.where(true_c > 0, below_c, 1)
        loss = ((1 - above_c / below_c) * share_c).sum()
        # By a probability: this where the class isn't the label, and that much more where it is.
        other_c = missed * above_c / below_c**2 * share_c
        more_c = ((1 - 2 * missed) * above_c - below_c) / below_c**2 * share_c
        derivative = other_c.view(-1, 1, 1).expand_as(probability).clone(memory_format=torch.preserve_format)
        derivative.scatter_add_(1, labels.unsqueeze(1), more_c[labels].unsqueeze(1))
        gradient = softmax_backward(probability, derivative)
    return with_gradient(student, loss, gradient)


def _valid_columns(student: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return logits (1, C, P) and labels (1, P) of the P valid pixels: what is ignored can't leak into a sum."""
    logits = student.to(computing_dtype(student))
    valid = valid_pixels(target, logits, ignore_index=ignore_index).flatten()
    rows, labels = logits.movedim(1, -1).flatten(0, -2), target.flatten()
    if not valid.all():
        chosen = valid.nonzero().squeeze(1)  # several times quicker than a mask, also backward
        rows, labels = rows.index_select(0, chosen), labels.index_select(0, chosen)
    return rows.T.unsqueeze(0), labels.long().unsqueeze(0)


def _checked_weights(class_weights: Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    weights = torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)
    if weights.shape != (logits.shape[1],):
        raise ConfigError(
            f"class_weights of cross_entropy needs one number per class ({logits.shape[1]}), found {weights.numel()}"
        )
    return weights
