"""Losses against true labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
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
    """Soft Jaccard loss of segmentation-models-pytorch over the valid pixels of the batch; 0 when none is valid.

    ``1 − Σ p·y / (Σ p + Σ y − Σ p·y)`` per class, 0 for classes without a true pixel, mean over all C classes.

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
    from segmentation_models_pytorch.losses import JaccardLoss

    with torch.autocast(student.device.type, enabled=False):
        logits, labels = _valid_columns(student, target, ignore_index)
        result: Tensor = JaccardLoss(mode="multiclass", smooth=smooth)(logits, labels)
        return result


def dice(student: Tensor, target: Tensor, *, smooth: float = 0.0, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Soft Dice loss of segmentation-models-pytorch over the valid pixels of the batch; 0 when none is valid.

    ``1 − 2 Σ p·y / (Σ p + Σ y)`` per class, 0 for classes without a true pixel, mean over all C classes.

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
    from segmentation_models_pytorch.losses import DiceLoss

    with torch.autocast(student.device.type, enabled=False):
        logits, labels = _valid_columns(student, target, ignore_index)
        result: Tensor = DiceLoss(mode="multiclass", smooth=smooth)(logits, labels)
        return result


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
