"""Masked generative distillation: rebuild the teacher's features from a part of the student's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses.adapters import check_channels
from segshrink.losses.pairs import feature_pair
from segshrink.losses.shapes import computing_dtype


class MaskedGeneration(nn.Module):
    """Hide most of the student's pixels, rebuild the teacher's features from the rest, and compare (MGD).

    ``y = conv3x3(relu(conv3x3(mask · align(student))))`` against the teacher's features. The mask is one per pixel,
    shared by the channels, and drawn anew at each call. The module is trained with the student and left out of the
    saved student. Channel counts may differ.

    Args:
        student_channels: Cs ≥ 1; where it differs from ``teacher_channels``, ``align`` is a 1x1 convolution with bias.
        teacher_channels: Ct ≥ 1.
        mask_ratio: Share of the pixels that is hidden, in [0, 1).
        reduction: ``"mean"`` over N·Ct·H·W of the squared difference, so that a weight doesn't depend on sizes;
            ``"sum"`` over Ct·H·W, divided by N, as in the paper, whose weight of 2e-5 belongs to 2048 channels of
            64 × 64 pixels: at that size 168 for the mean.

    Raises:
        ModelError: A channel count below 1.
        ConfigError: ``mask_ratio`` or ``reduction`` is out of range.

    Source:
        Yang et al. 2022 (arXiv:2205.01529).
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        mask_ratio: float = 0.75,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        check_channels(student_channels, teacher_channels, "MaskedGeneration")
        if not 0 <= mask_ratio < 1:
            raise ConfigError(f"mask_ratio of MaskedGeneration must be at least 0 and below 1, found {mask_ratio}")
        if reduction not in ("mean", "sum"):
            raise ConfigError(f"reduction of MaskedGeneration must be 'mean' or 'sum', found {reduction!r}")
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.mask_ratio = mask_ratio
        self.reduction = reduction
        same = student_channels == teacher_channels
        self.align = nn.Identity() if same else _Convolution(student_channels, teacher_channels, kernel_size=1)
        self.generation = nn.Sequential(
            _Convolution(teacher_channels, teacher_channels, kernel_size=3, padding=1),
            nn.ReLU(),
            _Convolution(teacher_channels, teacher_channels, kernel_size=3, padding=1),
        )

    def forward(self, student_features: Tensor, teacher_features: Tensor, *, uniform: Tensor | None = None) -> Tensor:
        """Return the loss, a float32 scalar (float64 for a float64 student or module), also under autocast.

        Args:
            student_features: (N, Cs, H, W).
            teacher_features: (N, Ct, h, w); resized bilinearly to (H, W) where the sizes differ; gets no gradient.
            uniform: Numbers in [0, 1) of shape (N, 1, H, W); pixels above ``1 − mask_ratio`` are hidden. None: drawn
                from torch's global generator, which a seed makes reproducible.

        Raises:
            ModelError: Shapes contradict each other or the channel counts of the module.
        """
        with torch.autocast(student_features.device.type, enabled=False):
            student, teacher = feature_pair(student_features, teacher_features, loss="MaskedGeneration")
            self._check(student, teacher)
            dtype = torch.promote_types(student.dtype, computing_dtype(next(self.generation.parameters())))
            rebuilt = self.generation(self._mask(student, uniform) * self.align(student.to(dtype)))
            loss = F.mse_loss(rebuilt, teacher.to(dtype), reduction=self.reduction)
            return loss / student.shape[0] if self.reduction == "sum" else loss

    def _check(self, student: Tensor, teacher: Tensor) -> None:
        expected = (self.student_channels, self.teacher_channels)
        channels = (student.shape[1], teacher.shape[1])
        if channels != expected:
            raise ModelError(
                f"MaskedGeneration was built for {expected[0]} student and {expected[1]} teacher channels, found "
                f"{channels[0]} and {channels[1]}; build it with the channels of the two features"
            )

    def _mask(self, student: Tensor, uniform: Tensor | None) -> Tensor:
        """Return bool (N, 1, H, W), False where hidden."""
        shape = (student.shape[0], 1, *student.shape[2:])
        if uniform is None:
            uniform = torch.rand(shape, device=student.device)
        elif tuple(uniform.shape) != shape:
            raise ModelError(f"uniform of MaskedGeneration must have the shape {shape}, found {tuple(uniform.shape)}")
        return ~(uniform > 1 - self.mask_ratio)


class _Convolution(nn.Conv2d):
    """A convolution in the precision of its input, whatever that of its weights."""

    def forward(self, features: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(features.dtype)
        return F.conv2d(features, self.weight.to(features.dtype), bias, padding=self.padding)
