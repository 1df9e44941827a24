"""Distillation losses that compare relations inside the features: channel to channel, pixel to pixel, pixel to class.

All take features (N, C, H, W) of the student and (N, C', h, w) of the teacher, resize the teacher's bilinearly to
(H, W) where the sizes differ, compute in float32 (float64 for a float64 student), also under autocast, and are
differentiable in the student only. A zero vector has no direction: its cosines are 0 and it gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError, ModelError
from segshrink.losses.pairs import feature_pair
from segshrink.losses.vectors import below_one, divisors, lengths, unit_vectors

# Added to lengths by the reference code of SKD.
LENGTH_OFFSET = 1e-8
# Shortest vector whose direction counts in full (torch.nn.CosineSimilarity).
COSINE_FLOOR = 1e-8
# Similarities that cross_image_relation holds at a time.
BLOCK_ELEMENTS = 2**22


def channel_correlation(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Squared difference of the channels' correlation matrices (ICKD).

    ``G = F Fᵀ`` (C × C) per image with each row divided by its length; ``Σ (G_S − G_T)² / (C · N · N)``: divided by
    N twice, as the reference code does, so the loss falls with the batch size. Channel counts must be equal: put a
    ``ChannelAdapter`` on the student's features where they aren't.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, h, w).

    Returns:
        Scalar ≥ 0. Published weight: 2.5.

    Raises:
        ModelError: Shapes of student and teacher contradict each other.

    Source:
        Liu et al. 2021 (ICCV), code of torchdistill.
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(
            student_features, teacher_features, loss="channel_correlation", equal_channels=True
        )
        images, channels = student.shape[:2]
        difference = _correlation_rows(student) - _correlation_rows(teacher)
        return difference.square().sum() / (channels * images * images)


def pairwise_similarity(student_features: Tensor, teacher_features: Tensor, *, scale: float = 0.5) -> Tensor:
    """Squared difference of the cosines between pooled regions of an image (SKD).

    Both maps are max-pooled with kernel and stride ``int(scale · size)`` (at least 1; a rest at the border is a
    region too), so that ``scale=0.5`` leaves 2 × 2 regions. ``Σ_n Σ_ij (A_T − A_S)² / (K² · N)`` over the cosines A
    of the K regions. As in the reference code, the lengths of the vectors count as constants in the gradient.
    Channel counts may differ. Time and memory: N · K² with K ≈ 1 / scale².

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', h, w).
        scale: Side of a region as a share of the map, in (0, 1].

    Returns:
        Scalar in [0, 4]. Published weight: 0.5.

    Raises:
        ModelError: Shapes of student and teacher contradict each other.
        ConfigError: ``scale`` isn't in (0, 1].

    Source:
        Liu et al. 2019 (arXiv:1903.04197).
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"scale of pairwise_similarity must be above 0 and at most 1, found {scale}")
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="pairwise_similarity")
        height, width = student.shape[2:]
        region = (max(1, int(height * scale)), max(1, int(width * scale)))
        difference = _region_cosines(teacher, region) - _region_cosines(student, region)
        return difference.square().mean()


def intra_class_variation(
    student_features: Tensor,
    teacher_features: Tensor,
    target: Tensor,
    *,
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Squared difference of how near each pixel is to the center of its class (IFVD).

    The center of a class is the mean of its pixels' features in an image; at every pixel the cosine between its
    features and the center of its class; mean over N·H·W of ``(cos_S − cos_T)²``. Pixels without a class add 0 but
    stay in the denominator, as in the reference code. Channel counts may differ.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', h, w).
        target: Labels (N, any height, any width); brought to (H, W) by taking the nearest label to the top left.
        num_classes: K; labels outside 0 … K − 1 belong to no class.
        ignore_index: Label of pixels without a class.

    Returns:
        Scalar in [0, 4]; 0 when no pixel has a class. Published weights: 200, and 20 in CIRKD.

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
        ConfigError: ``num_classes`` is below 1.

    Source:
        Wang et al. 2020 (ECCV), https://github.com/YukangWang/IFVD.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes of intra_class_variation must be at least 1, found {num_classes}")
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="intra_class_variation")
        labels = _labels_like(target, student)
        has_class = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
        labels = labels.masked_fill(~has_class, 0)
        student, teacher = (
            _cosines_to_centers(features.masked_fill(~has_class.unsqueeze(1), 0), labels, num_classes)
            for features in (student, teacher)
        )
        return F.mse_loss(student, teacher)


def cross_image_relation(
    student_features: Tensor, teacher_features: Tensor, *, temperature: float = 0.1, pool: int = 1
) -> Tensor:
    """Divergence of how pixels resemble the pixels of every image of the batch (CIRKD, mini-batch part).

    For every ordered pair of images (i, j), i = j included: the cosines of all pixels of i with all of j, divided by
    T, softmax over the pixels of j; ``1 / N² · Σ_ij mean over rows KL(teacher ‖ student)``, without a factor T².
    Differentiable once. Channel counts may differ.

    Time grows with N² · (H·W)² · (3 C + C'), so pool first: 8 images of 64 × 64 hold a thousand million pairs of
    pixels, of 16 × 16 four million. Memory doesn't: pairs are compared block by block, and only a gradient of the
    features' size is kept.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', h, w).
        temperature: T > 0; smaller looks at the most similar pixels only.
        pool: Side of the squares averaged first (a rest at the border is averaged too), an integer ≥ 1; 2 is what
            the reference code offers.

    Returns:
        Scalar ≥ 0. Published weight: 1.

    Raises:
        ModelError: Shapes of student and teacher contradict each other.
        ConfigError: ``temperature`` isn't positive or ``pool`` isn't an integer of at least 1.

    Source:
        Yang et al. 2022 (arXiv:2204.06986).
    """
    if not temperature > 0:
        raise ConfigError(f"temperature of cross_image_relation must be above 0, found {temperature}")
    if pool != int(pool) or pool < 1:
        raise ConfigError(f"pool of cross_image_relation must be an integer of at least 1, found {pool}")
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = feature_pair(student_features, teacher_features, loss="cross_image_relation")
        result: Tensor = _PixelRelations.apply(
            _pixel_directions(student, int(pool)), _pixel_directions(teacher, int(pool)), float(temperature)
        )
        return result


def _correlation_rows(features: Tensor) -> Tensor:
    """Return (N, C, C), each row of unit length."""
    channels = features.flatten(2)
    return unit_vectors(below_one(channels @ channels.transpose(1, 2), dim=2), dim=2)


def _region_cosines(features: Tensor, region: tuple[int, int]) -> Tensor:
    """Return (N, K, K) for the K regions of that height and width."""
    nodes = F.max_pool2d(features, region, region, ceil_mode=True).flatten(2)
    length = lengths(nodes.detach(), 1)
    nodes = nodes / (length + LENGTH_OFFSET).masked_fill(length == 0, torch.inf)
    return nodes.transpose(1, 2) @ nodes


def _labels_like(target: Tensor, features: Tensor) -> Tensor:
    """Return labels (N, H, W) of the features' size."""
    if target.dim() != 3 or target.shape[0] != features.shape[0]:
        raise ModelError(
            f"labels of shape {tuple(target.shape)} don't fit features of shape {tuple(features.shape)}; "
            f"intra_class_variation needs labels (N, height, width) of the same {features.shape[0]} images"
        )
    size = features.shape[2:]
    if target.shape[1:] == size:
        return target.long()
    return F.interpolate(target.unsqueeze(1).float(), size=tuple(size), mode="nearest").squeeze(1).long()


def _cosines_to_centers(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return (N, 1, H·W): the cosine of each pixel with the center of its class, 0 for pixels of zeros."""
    pixels, labels = features.flatten(2), labels.flatten(1).unsqueeze(1)
    members = labels == torch.arange(num_classes, device=labels.device).view(1, -1, 1)
    # The sum of the members points where their mean does, and no more than that counts.
    centers = members.to(pixels.dtype) @ pixels.transpose(1, 2)
    cosines = ((centers / divisors(lengths(centers, 2), COSINE_FLOOR)) @ pixels).gather(1, labels)
    return cosines / divisors(lengths(pixels, 1), COSINE_FLOOR)


def _pixel_directions(features: Tensor, pool: int) -> Tensor:
    """Return unit vectors (N, H·W, C)."""
    if pool > 1:
        features = F.avg_pool2d(features, pool, ceil_mode=True)
    return unit_vectors(features.flatten(2).transpose(1, 2), dim=2)


class _PixelRelations(torch.autograd.Function):
    """The divergence with its gradient in closed form: the similarities needn't be kept for the backward pass.

    Of unit vectors (N, P, C) and (N, P, C'). The derivative by a similarity is ``(p_S − p_T) / (T · P · N²)``.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        images, pixels = student.shape[:2]
        student_rows, teacher_rows = student.flatten(0, 1), teacher.flatten(0, 1)
        gradient = torch.zeros_like(student_rows) if ctx.needs_input_grad[0] else None
        divergence = student.new_zeros(())
        block_rows = max(1, BLOCK_ELEMENTS // (images * pixels))
        for start in range(0, images * pixels, block_rows):
            block = slice(start, start + block_rows)
            log_student, log_teacher = (
                (all_rows[block] @ all_rows.T).div_(temperature).view(-1, images, pixels).log_softmax(dim=2)
                for all_rows in (student_rows, teacher_rows)
            )
            probability = log_teacher.exp()
            divergence += log_teacher.sub_(log_student).mul_(probability).sum()
            if gradient is not None:
                by_similarity = log_student.exp_().sub_(probability).flatten(1)
                gradient[block] += by_similarity @ student_rows
                gradient += by_similarity.T @ student_rows[block]
        scale = 1 / (images**2 * pixels)
        if gradient is not None:
            ctx.save_for_backward(gradient.mul_(scale / temperature).view_as(student))
        return divergence * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None
