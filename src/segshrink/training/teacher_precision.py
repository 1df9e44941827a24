"""The teacher of a recipe in the precision in which it answers soonest, asked as this training asks it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.config import Learner, Recipe
from segshrink.data import CropModule, calibration_tiles
from segshrink.teachers import Teacher
from segshrink.teachers.precision import PrecisionChoice, quickest
from segshrink.training.hardware import lightning_precision

# Tiles that a network's ranges are observed on.
TILES = 32


def quickest_teacher(
    recipe: Recipe, learner: Learner, teacher: Teacher, data: CropModule
) -> tuple[Teacher, tuple[PrecisionChoice, ...]]:
    """Return the teacher as ``distillation.precision`` has it, and the choice for each that it consists of.

    For a cache it is asked about tiles of scenes, else about batches of crops.

    Raises:
        MissingExtraError: OpenVINO or NNCF isn't installed.
    """
    section = recipe.distillation
    if section.precision == "auto":
        return teacher, ()
    tiles = calibration_tiles(data.dataset, count=TILES)
    size, count = recipe.crops.size, recipe.crops.batch_size
    mixed = lightning_precision(learner.training.precision) == "bf16-mixed"

    def about_scene(asked: Teacher, tile: NDArray[Any]) -> Tensor:
        return torch.from_numpy(asked.scene_logits(np.ascontiguousarray(tile.transpose(1, 2, 0)), "tile"))[None]

    def about_crops(asked: Teacher, tile: NDArray[Any]) -> Tensor:
        crop = torch.from_numpy(np.ascontiguousarray(tile[:, :size, :size]))
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return asked.logits(crop[None].expand(count, -1, -1, -1).contiguous())

    cached = bool(section.teacher_cache)
    height, width = tiles[0].shape[1:]
    return quickest(
        teacher,
        section.precision,
        tiles,
        ask=about_scene if cached else about_crops,
        question=f"a tile of {height} x {width} pixels" if cached else f"{count} crops of {size} pixels",
        folder=data.train_store.folder / "teachers",
    )
