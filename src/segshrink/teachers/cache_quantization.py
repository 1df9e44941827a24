"""Logits in one byte a class: how far each lies below its pixel's highest one, finest where the classes are close.

A pixel of C classes takes C + 1 bytes. Byte c is ``round(32 · √gap)`` with ``gap = max z − z_c``, so a byte u stands
for a gap of ``(u / 32)²``, up to 63.5 (a probability of 1e-28). The last byte is the highest logit in quarters, from
-16 to 47.75: a softmax over the classes doesn't depend on it, losses that compare a class's logits over the image
(``channel_kl``) or take classes one by one (``binary_kl``) do.

Steps grow with the gap, from 1/1024 beside the highest logit over 1/8 at a gap of 4 to 1/2 at 63: they are fine where a
class is likely, and the likeliest stays the likeliest. The code has no parameters, so bytes may be averaged as pixels
are, which is several times as fast as averaging floats; averages of roots lie between averages of logits and averages
of probabilities. What this costs is in ``benchmarks/results/teacher_code.md``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Part of every cached answer's name: raise it when codes change their meaning, and old answers are no longer found.
VERSION = 3

_STEPS = 32
_LEVEL_STEPS, _LOWEST_LEVEL = 4, -16
# Rows coded at once: their floating temporaries stay in the processor's cache.
_ROWS = 64


class NotFiniteError(ValueError):
    """Logits with NaN, +inf or a pixel without a finite one."""


def encode(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the codes (H, W, C + 1) of logits (C, H, W), of which some but not all of a pixel may be -inf.

    Raises:
        NotFiniteError: A pixel has NaN, +inf, or no finite logit.
    """
    classes, height, width = logits.shape
    codes = np.empty((height, width, classes + 1), np.uint8)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        level = logits[:, rows].max(axis=0)
        if not np.isfinite(level).all():
            raise NotFiniteError
        steps = level - logits[:, rows]
        np.sqrt(steps, out=steps)
        np.rint(np.multiply(steps, _STEPS, out=steps), out=steps)
        codes[rows, :, :classes] = np.minimum(steps, 255, out=steps).transpose(1, 2, 0)
        codes[rows, :, classes] = np.clip(np.rint((level - _LOWEST_LEVEL) * _LEVEL_STEPS), 0, 255)
    return codes


def decode(codes: Tensor) -> Tensor:
    """Return the float32 logits (N, C, H, W), all finite, of codes (N, C + 1, H, W) uint8, in planes."""
    codes = codes.contiguous()  # one slow pass over bytes instead of several over floats
    logits = codes[:, :-1].to(torch.float32).square_().mul_(-1 / _STEPS**2)
    level = codes[:, -1:].to(torch.float32).div_(_LEVEL_STEPS).add_(_LOWEST_LEVEL)
    return logits.add_(level)
