"""Distillation losses that compare features position by position.

All take features (N, C, H, W) of the student and (N, C', h, w) of the teacher, resize the teacher's bilinearly to
(H, W) where the sizes differ, compute in float32 (float64 for a float64 student), also under autocast, and are
differentiable in the student only.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.errors import ConfigError
from segshrink.losses.pairs import feature_pair
from segshrink.losses.vectors import below_one, divisors, lengths, unit_vectors

# Keeps the division by a channel's deviation finite (PKD, reference code).
DEVIATION_FLOOR = 1e-6
# Shortest vector whose direction counts in full (torch.nn.CosineSimilarity).
COSINE_FLOOR = 1e-8


def hint(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference over all N·C·H·W elements (FitNet).

    Channel counts must be equal: put a ``ChannelAdapter`` on the student's features where they aren't.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, h, w).

    Returns:
        Scalar ≥ 0; grows with the square of the features' scale. Published weight: 10 (CIRKD).

    Raises:
        ModelError: Shapes of student and teacher contradict each other.

    Source:
        Romero et al. 2015 (arXiv:1412.6550).
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="hint", equal_channels=True)
        return F.mse_loss(student, teacher)


def cosine_hint(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """One minus the cosine of the two channel vectors, mean over the positions where both have a direction.

    Blind to the scale of either side. A position where a side is zero in all channels doesn't count; 0 when none
    counts. Channel counts must be equal: put a ``ChannelAdapter`` on the student's features where they aren't.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, h, w).

    Returns:
        Scalar in [0, 2].

    Raises:
        ModelError: Shapes of student and teacher contradict each other.

    Source:
        The cosine form of FitNet's hint (Romero et al. 2015, arXiv:1412.6550).
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="cosine_hint", equal_channels=True)
        student_length, teacher_length = lengths(student, 1), lengths(teacher, 1)
        counts = (student_length > 0) & (teacher_length > 0)
        product = (student * teacher).sum(dim=1, keepdim=True)
        cosine = product / divisors(student_length, COSINE_FLOOR) / divisors(teacher_length, COSINE_FLOOR)
        return ((1 - cosine) * counts).sum() / counts.sum().clamp(min=1)


def attention_transfer(
    student_features: Tensor, teacher_features: Tensor, *, mode: Literal["code", "paper"] = "code"
) -> Tensor:
    """Difference of the spatial attention maps: where the features are strong, whatever the channel.

    ``a(f)`` is the vector of ``mean_c f²`` over the H·W positions of an image, divided by its length. Channel counts
    may differ.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', h, w).
        mode: ``"code"``: mean over N·H·W of ``(a_S − a_T)²``, what published code computes, hence weights of 1e3 to
            1e4. ``"paper"``: sum over the images of the length ``‖a_S − a_T‖``, as printed.

    Returns:
        Scalar ≥ 0. Features that are zero all over have the attention 0 everywhere.

    Raises:
        ModelError: Shapes of student and teacher contradict each other.
        ConfigError: Unknown ``mode``.

    Source:
        Zagoruyko and Komodakis 2017 (arXiv:1612.03928).
    """
    if mode not in ("code", "paper"):
        raise ConfigError(f"mode of attention_transfer must be 'code' or 'paper', found {mode!r}")
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="attention_transfer")
        difference = _attention(student) - _attention(teacher)
        if mode == "code":
            return difference.square().mean()
        return lengths(difference, 1).sum()


def pearson_hint(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Half the mean squared difference of features standardized per channel over N·H·W (PKD).

    ``(f − mean) / (deviation + 1e-6)`` with the unbiased deviation: 1 − Pearson's correlation, up to the factor
    (n − 1) / n, so blind to scale and offset of each channel. A channel that is constant standardizes to 0 and gets
    no gradient. Channel counts must be equal: put a ``ChannelAdapter`` on the student's features where they aren't.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, h, w).

    Returns:
        Scalar in [0, 2]. Published weights: 1 to 6.

    Raises:
        ModelError: Shapes of student and teacher contradict each other.

    Source:
        Cao et al. 2022 (arXiv:2207.02039).
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="pearson_hint", equal_channels=True)
        return F.mse_loss(_standardized(student), _standardized(teacher)) / 2


def _attention(features: Tensor) -> Tensor:
    return unit_vectors(below_one(features.square().mean(dim=1).flatten(1), dim=1), dim=1)


def _standardized(features: Tensor) -> Tensor:
    values = features.numel() // features.shape[1]
    deviation, mean = torch.std_mean(features, dim=(0, 2, 3), correction=min(1, values - 1), keepdim=True)
    return (features - mean) / (deviation + DEVIATION_FLOOR).masked_fill(deviation == 0, torch.inf)
