"""Crops of a batch mixed with each other: CutMix and MixUp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segshrink.classes import IGNORE_INDEX

Batch = Mapping[str, Any]
# Share of a crop that a rectangle covers, and height over width; as in UniMatch (Yang et al., CVPR 2023).
_AREA, _ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)


def cut_mixed(batch: Batch, chance: float, generator: torch.Generator) -> dict[str, Any]:
    """Replace a rectangle of some crops by the same rectangle of the crop before them (Yun et al., CutMix, ICCV 2019).

    Args:
        batch: Whatever has the images' height and width as its last dimensions is mixed alike: labels, cached answers.
        chance: That of each crop.
        generator: Where all random numbers come from.
    """
    number, _, height, width = batch["image"].shape
    mixed = _copies(batch, (height, width))
    for crop in range(number):
        chosen, area, aspect, top, left = torch.rand(5, generator=generator).tolist()
        if chosen >= chance:
            continue
        share = _AREA[0] + (_AREA[1] - _AREA[0]) * area
        ratio = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** aspect
        rows = min(height, max(1, round(height * (share * ratio) ** 0.5)))
        cols = min(width, max(1, round(width * (share / ratio) ** 0.5)))
        row, col = int(top * (height - rows + 1)), int(left * (width - cols + 1))
        for name, values in mixed.items():
            rectangle = (..., slice(row, row + rows), slice(col, col + cols))
            values[crop][rectangle] = batch[name][crop - 1][rectangle]
    return {**batch, **mixed}


def blended(
    batch: Batch, chance: float, generator: torch.Generator, *, labels: Sequence[str] = ("target",)
) -> dict[str, Any]:
    """Blend some crops with the crop before them by a random share (Zhang et al., MixUp, ICLR 2018).

    Args:
        batch: ``image`` (N, bands, H, W) and, where known, ``inside`` (N, H, W), which then is where both are.
        chance: That of each crop.
        generator: Where all random numbers come from.
        labels: Names of targets (N, H, W), which are ignored where crops are blended.
    """
    images = batch["image"]
    chosen = (torch.rand(len(images), generator=generator) < chance).to(images.device)
    shares = torch.rand(len(images), generator=generator).to(images.device).view(-1, 1, 1, 1)
    values = torch.lerp(images.float(), images.roll(1, 0).float(), shares)
    values = values if images.is_floating_point() else values.round()
    mixed = {"image": torch.where(chosen.view(-1, 1, 1, 1), values.to(images.dtype), images)}
    pixels = chosen.view(-1, 1, 1)
    for name in labels:
        mixed[name] = batch[name].masked_fill(pixels, IGNORE_INDEX)
    if batch.get("inside") is not None:
        mixed["inside"] = batch["inside"] & (batch["inside"].roll(1, 0) | ~pixels)
    return {**batch, **mixed}


def _copies(batch: Batch, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return copies of what has an image's size, in the same memory order."""
    return {
        name: values.clone()
        for name, values in batch.items()
        if isinstance(values, Tensor) and values.ndim > 2 and tuple(values.shape[-2:]) == size
    }
