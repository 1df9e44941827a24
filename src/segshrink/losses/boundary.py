"""How well the borders of classes are drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segshrink.classes import IGNORE_INDEX
from segshrink.errors import ConfigError
from segshrink.losses.shapes import computing_dtype, valid_pixels

# Side of the window whose middle is a border pixel where it holds another class.
_BORDER = 3


def boundary(student: Tensor, target: Tensor, *, tolerance: int = 5, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """1 − F1 of soft borders, mean over the classes of the batch; 0 where no class has a border.

    The border of a class is ``pool₃(1 − m) − (1 − m)`` with m its mask, or its probabilities, and pool the largest
    value of a window. Precision is the share of the student's border that lies within the tolerance of the true one,
    recall the other way round, both over the whole batch. Borders next to invalid pixels don't count.

    Args:
        student: Logits (N, C, H, W); computed in float32 (float64 stays), also under autocast.
        target: Class indices (N, H, W).
        tolerance: Odd side in pixels, at least 3, of the window within which borders match.
        ignore_index: Label of pixels that don't count.

    Returns:
        Scalar in [0, 1].

    Raises:
        ModelError: Shapes of logits and labels contradict each other.
        ConfigError: ``tolerance`` is even or below 3.

    Source:
        Bokhovkin & Burnaev 2019 (arXiv:1905.07852), made for aerial images; there beside a Jaccard loss.
    """
    if tolerance < _BORDER or tolerance % 2 == 0:
        raise ConfigError(f"tolerance of boundary must be an odd number of at least 3, found {tolerance}")
    with torch.autocast(student.device.type, enabled=False):
        logits = student.to(computing_dtype(student))
        valid = valid_pixels(target, logits, ignore_index=ignore_index)
        labels = F.one_hot(target.long().masked_fill(~valid, 0), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        counted = 1 - _largest((~valid).unsqueeze(1).to(logits.dtype), _BORDER)
        own, true = (_border(mask) * counted for mask in (logits.softmax(dim=1), labels))
        images_and_pixels = (0, 2, 3)
        precise = (own * _largest(true, tolerance)).sum(images_and_pixels), own.sum(images_and_pixels)
        recalled = (true * _largest(own, tolerance)).sum(images_and_pixels), true.sum(images_and_pixels)
        precision_c, recall_c = (part / whole.clamp(min=1e-7) for part, whole in (precise, recalled))
        f1_c = 2 * precision_c * recall_c / (precision_c + recall_c).clamp(min=1e-7)
        there_c = recalled[1] > 0
        return ((1 - f1_c) * there_c).sum() / there_c.sum().clamp(min=1)


def _border(mask: Tensor) -> Tensor:
    """Return the soft inner border of masks (N, C, H, W)."""
    return _largest(1 - mask, _BORDER) - (1 - mask)


def _largest(values: Tensor, side: int) -> Tensor:
    return F.max_pool2d(values, side, stride=1, padding=side // 2)
