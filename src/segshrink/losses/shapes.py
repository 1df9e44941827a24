"""What every loss checks and converts first: sizes, valid pixels, computing precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError


def aligned(
    student: Tensor, teacher: Tensor, target: Tensor | None, *, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return student and teacher in computing precision and of one size, and where the target is valid (None: all).

    Raises:
        ModelError: Shapes of student, teacher and target contradict each other.
    """
    dtype = computing_dtype(student)
    student = student.to(dtype)
    teacher = like_student(teacher.detach().to(dtype), student)
    return student, teacher, None if target is None else valid_pixels(target, student, ignore_index=ignore_index)


def check_temperature(loss: str, temperature: float) -> None:
    """Refuse a temperature of the loss of that name that isn't positive.

    Raises:
        ConfigError: It isn't.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature of {loss} must be above 0, found {temperature}")


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return ``logits / temperature``, the same tensor at temperature 1."""
    return logits if temperature == 1 else logits / temperature


def number_of(valid: Tensor | None, among: Tensor) -> Tensor:
    """Return how many of the (N, H, W) pixels of ``among`` (N, C, H, W) are valid, as a scalar of its type."""
    if valid is None:
        return torch.tensor(among[:, 0].numel(), dtype=among.dtype, device=among.device)
    return valid.sum().to(among.dtype)


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
    size = (student.shape[2], student.shape[3])
    if tuple(teacher.shape[2:]) == size:
        return teacher
    # Interpolation multiplies by 0 at places, and 0 · inf (a class that the teacher excludes) would be NaN.
    limits = torch.finfo(teacher.dtype)
    return resized(teacher.clamp(limits.min, limits.max), size)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, C, h, w) bilinearly to height and width, corners not aligned; the same tensor where they fit."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
