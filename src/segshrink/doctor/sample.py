"""The few crops of the user's own validation images that an examination looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.data import CropPlan, Dataset, SceneStore, cut, plan_crop
from segshrink.data.crops import inside
from segshrink.errors import ConfigError, DataError
from segshrink.model_description import Normalization
from segshrink.teachers.teacher import TILE

# Scenes decoded at most.
_SCENES = 24
# Foreign networks take sides that are multiples of this.
_MULTIPLE = 32


@dataclass(frozen=True)
class Sample:
    """Crops at the original resolution, in random order.

    Attributes:
        images: Raw pixel values (n, bands, size, size), uint8 or float32.
        targets: Class indices (n, size, size) int64, 255 where unlabelled or outside the scene.
        inside: Bool (n, size, size), False outside the scene.
        plans: Where the crops lie.
        store: The scenes they were cut from.
    """

    images: Tensor
    targets: Tensor
    inside: Tensor
    plans: tuple[CropPlan, ...] = field(repr=False)
    store: SceneStore = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of a crop in pixels."""
        return int(self.images.shape[-1])

    @property
    def statistics(self) -> Normalization:
        """Mean and deviation of each band over the crops, in raw pixel units."""
        values = self.images.float().transpose(0, 1).flatten(1)
        return Normalization(tuple(values.mean(dim=1).tolist()), tuple(values.std(dim=1).clamp_min(1e-6).tolist()))

    @property
    def holds_bytes(self) -> bool:
        """Whether all pixels are from 0 to 255."""
        return bool((self.images >= 0).all()) and bool((self.images <= 255).all())

    @property
    def has_surroundings(self) -> bool:
        """Whether a scene shows more than its crop does."""
        return self.size < TILE and any(max(self.store.shape(plan.sample)) > self.size for plan in self.plans)

    def surroundings(self, index: int) -> tuple[Tensor, tuple[slice, slice]]:
        """Return what a tile of deployment shows around a crop, (1, bands, H, W), and where the crop lies in it."""
        plan = self.plans[index]
        height, width = self.store.shape(plan.sample)
        rows, crop_rows = _around(plan.row, self.size, height)
        cols, crop_cols = _around(plan.col, self.size, width)
        window = self.store.image(plan.sample)[np.ix_(rows, cols)]
        return _tensor(window).permute(2, 0, 1)[None], (crop_rows, crop_cols)


def draw_sample(dataset: Dataset, *, images: int, size: int, shrink: bool = False, seed: int = 0) -> Sample:
    """Draw crops of validation scenes, each centred on a pixel of a class drawn among those of its scene.

    Every scene and every class is looked at about equally often, so scores aren't those of an evaluation.

    Args:
        dataset: The data set.
        images: Number of crops.
        size: Their side in pixels.
        shrink: Let crops be no larger than the largest scene, in whole multiples of 32 pixels.
        seed: The same seed gives the same crops.

    Raises:
        ConfigError: The validation split is empty.
        DataError: No validation scene has a labelled pixel.
    """
    if not dataset.val:
        raise ConfigError(f"data set '{dataset.description.name}' has no images in its val split to judge a teacher by")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset.val))[: min(images, _SCENES)]
    store = SceneStore([dataset.val[number] for number in chosen], dataset.classes)
    present = [np.bincount(store.mask(index).ravel(), minlength=256)[:IGNORE_INDEX] for index in range(len(store))]
    labeled = [index for index, counts in enumerate(present) if counts.any()]
    if not labeled:
        raise DataError(f"none of {len(store)} validation scenes of '{dataset.description.name}' has a labelled pixel")
    if shrink:
        longest = max(max(store.shape(index)) for index in labeled)
        size = min(size, -(-longest // _MULTIPLE) * _MULTIPLE)
    plans = []
    for number in range(images):
        index = labeled[number % len(labeled)]
        mask = store.mask(index)
        class_index = rng.choice(np.flatnonzero(present[index]))
        row, col = divmod(int(rng.choice(np.flatnonzero(mask == class_index))), mask.shape[1])
        plans.append(plan_crop(rng, index, shape=store.shape(index), size=size, center=(row, col)))
    plans = [plans[place] for place in rng.permutation(images)]
    return Sample(
        images=torch.stack([_tensor(cut(store.image(plan.sample), plan)).permute(2, 0, 1) for plan in plans]),
        targets=torch.stack([_target(store, plan) for plan in plans]),
        inside=torch.stack([torch.from_numpy(inside(plan, store.shape(plan.sample))) for plan in plans]),
        plans=tuple(plans),
        store=store,
    )


def _target(store: SceneStore, plan: CropPlan) -> Tensor:
    return torch.from_numpy(cut(store.mask(plan.sample), plan, fill=IGNORE_INDEX, order="nearest")).long()


def _around(start: int, size: int, extent: int) -> tuple[NDArray[np.intp], slice]:
    """Return the pixels along an axis that a tile around a crop takes, and the crop's place among them."""
    side = max(size, min(TILE, extent))
    first = min(max(start - (side - size) // 2, 0), extent - side) if extent >= side else start
    return np.clip(np.arange(first, first + side), 0, extent - 1), slice(start - first, start - first + size)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    """Return (H, W, bands) as a tensor of bytes, or else float32."""
    return torch.from_numpy(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
