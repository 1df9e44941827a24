"""What every loss checks and converts first: sizes, valid pixels, computing precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.errors import ModelError


def computing_dtype(logits: Tensor) -> torch.dtype:
    """Return float64 for float64 logits, float32 for all others."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def valid_pixels(target: Tensor, logits: Tensor, *, ignore_index: int) -> Tensor:
    """Return where ``target`` (N, H, W) isn't ``ignore_index``, as bool; it must fit ``logits`` (N, C, H, W).

    Raises:
        ModelError: Another shape.
    """
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ModelError(
            f"labels of shape {tuple(target.shape)} don't fit logits of shape {tuple(logits.shape)}; "
            f"give labels of shape {expected}"
        )
    return target != ignore_index


def like_student(teacher: Tensor, student: Tensor) -> Tensor:
    """Resize the teacher's logits to the student's height and width; refuse other classes or another batch.

    Raises:
        ModelError: Batch or classes differ.
    """
    if teacher.shape[:2] != student.shape[:2] or teacher.dim() != student.dim():
        raise ModelError(
            f"teacher logits of shape {tuple(teacher.shape)} don't fit student logits of shape "
            f"{tuple(student.shape)}; both need the same images and the same classes in the same order"
        )
    return resized(teacher, (student.shape[2], student.shape[3]))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to height and width, corners not aligned; the same tensor where they fit."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
