"""Features of student and teacher, checked and brought to one size and precision."""

from __future__ import annotations

from torch import Tensor

from segshrink.errors import ModelError
from segshrink.losses.shapes import computing_dtype, resized


def feature_pair(
    student_features: Tensor, teacher_features: Tensor, *, loss: str, equal_channels: bool = False
) -> tuple[Tensor, Tensor]:
    """Return both as float32 (float64 for a float64 student), the teacher's detached and of the student's size.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C', h, w); resized bilinearly to (H, W) where the sizes differ.
        loss: Name of the loss, for its errors.
        equal_channels: Whether C' must be C.

    Raises:
        ModelError: Not four axes, nothing inside, another batch, or other channels where they must be equal.
    """
    shapes = f"student features of shape {tuple(student_features.shape)} and teacher features of shape "
    shapes += f"{tuple(teacher_features.shape)}"
    if student_features.dim() != 4 or teacher_features.dim() != 4:
        raise ModelError(f"{loss} needs features (N, C, H, W), found {shapes}")
    if student_features.numel() == 0 or teacher_features.numel() == 0:
        raise ModelError(f"{loss} needs at least one image, channel and pixel, found {shapes}")
    if student_features.shape[0] != teacher_features.shape[0]:
        raise ModelError(f"{loss} needs both sides' features of the same images, found {shapes}")
    channels = student_features.shape[1], teacher_features.shape[1]
    if equal_channels and channels[0] != channels[1]:
        raise ModelError(
            f"{loss} needs as many student as teacher channels, found {channels[0]} and {channels[1]}; "
            f"put ChannelAdapter({channels[0]}, {channels[1]}) on the student's features"
        )
    dtype = computing_dtype(student_features)
    size = (student_features.shape[2], student_features.shape[3])
    return student_features.to(dtype), resized(teacher_features.detach().to(dtype), size)
