"""Crops and scenes as data sets of torch: items are functions of (seed, epoch, position)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from segshrink import tiling
from segshrink.classes import IGNORE_INDEX
from segshrink.config import Augmentation, Crops
from segshrink.data.augmentation import photometric, value_range
from segshrink.data.class_positions import ClassPositions
from segshrink.data.crops import CropPlan, cut, inside, plan_crop
from segshrink.data.store import SceneStore
from segshrink.errors import DataError

# Images that the value range is measured on.
_RANGE_IMAGES = 64
# Times that a crop is drawn until one of its pixels has a value.
_DRAWS = 16

# Gives an (H, W, channels) array over the pixels of the scene with that number.
Layer = Callable[[int], NDArray[Any]]


class CropDataset(TorchDataset[dict[str, Any]]):
    """Random augmented crops; each is a function of (seed, epoch, position) and nothing else.

    Items are mappings: ``image`` (bands, size, size), uint8 or else float32, in channels-last memory; ``target``
    (size, size) uint8, 255 = ignore; ``inside`` (size, size) bool, False where the crop reaches outside the scene or
    the image has no value; ``sample``, the scene's number: labeled scenes first, then unlabeled ones; and one entry
    for each layer.

    Args:
        labeled: Scenes with masks; drawn in proportion to their area that has values, or equally often with
            ``crops.draw`` "image". Crops in which no pixel has a value are drawn again.
        unlabeled: Scenes without; their targets are all ignored.
        crops: Size, number and mix of crops.
        augmentation: How crops are changed; what it leaves to the data isn't done.
        seed: Where all random numbers come from.
        layers: More arrays to cut with the crops' plans, by name: (channels, size, size), uint8 or else float32, in the
            items.
        recolored: How the colors of unlabeled crops change once more, in a second image of each item, ``recolored``.
        doubted_weight: Chance that a pixel whose label is doubted keeps it, drawn anew for each crop.

    Raises:
        DataError: There is no labeled scene, or no pixel of the scenes of a kind has a value.
    """

    def __init__(
        self,
        labeled: SceneStore,
        unlabeled: SceneStore | None = None,
        *,
        crops: Crops,
        augmentation: Augmentation,
        seed: int,
        layers: Mapping[str, Layer] | None = None,
        recolored: Augmentation | None = None,
        doubted_weight: float = 1.0,
    ) -> None:
        if len(labeled) == 0:
            raise DataError("there is no labeled image to train on; check the data set's 'split'")
        self.crops = crops
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0
        self._stores = [labeled] if unlabeled is None or len(unlabeled) == 0 else [labeled, unlabeled]
        self._chances = [np.cumsum(_chances(store, crops.draw), dtype=np.float64) for store in self._stores]
        self._layers = dict(layers or {})
        self._recolored = recolored
        self._doubted_weight = doubted_weight
        self._limits = value_range(labeled.image(index) for index in _spread(len(labeled), _RANGE_IMAGES))
        self._positions: ClassPositions | None = None
        if crops.rare_class_share > 0:
            self._positions = ClassPositions((labeled.mask(index) for index in range(len(labeled))), seed=seed)

    def __len__(self) -> int:
        """Crops of an epoch: a multiple of the batch size that covers the labeled area once, or ``per_epoch``."""
        return epoch_length(self._stores[0], self.crops)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch plain integer indices belong to."""
        self.epoch = epoch

    def plan(self, position: int, *, epoch: int) -> CropPlan:
        """Return which pixels the crop at a position of an epoch shows."""
        return self._plan(np.random.default_rng((self.seed, epoch, position)))

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, position = key if isinstance(key, tuple) else (self.epoch, key)
        rng = np.random.default_rng((self.seed, epoch, position))
        plan = self._plan(rng)
        labeled = len(self._stores[0])
        store, index = (
            (self._stores[0], plan.sample) if plan.sample < labeled else (self._stores[1], plan.sample - labeled)
        )
        item = _read(store, index, plan, self._layers)
        item["image"] = photometric(item["image"], rng, settings=self.augmentation, limits=self._limits)
        if self._recolored is not None:
            image = item["image"]
            if plan.sample >= labeled:
                image = photometric(image, rng, settings=self._recolored, limits=self._limits)
            item["recolored"] = image
        if self._doubted_weight < 1 and (doubted := store.doubted(index, _rows(plan))) is not None:
            dropped = rng.random(item["target"].shape) >= self._doubted_weight
            item["target"][dropped & cut(doubted, plan, fill=False, order="nearest")] = IGNORE_INDEX
        return _tensors(item)

    def _plan(self, rng: np.random.Generator) -> CropPlan:
        labeled_draw, rare_draw, scene_draw = rng.random(3).tolist()
        kind = int(len(self._stores) > 1 and labeled_draw < self.crops.unlabeled_share)
        center = None
        if kind == 0 and rare_draw < self.crops.rare_class_share and self._positions and self._positions.classes:
            index, row, col = self._positions.draw(rng)
            center = (row, col)
        else:
            chances = self._chances[kind]
            index = int(np.searchsorted(chances, scene_draw * chances[-1], side="right"))
        valid = self._stores[kind].valid(index)
        for _ in range(_DRAWS):
            plan = plan_crop(
                rng,
                index + kind * len(self._stores[0]),
                shape=self._stores[kind].shape(index),
                size=self.crops.size,
                scale=self.augmentation.scale,
                flips=self.augmentation.flips or False,
                quarter_turns=self.augmentation.quarter_turns or False,
                center=center,
            )
            if valid is None or _window(plan, valid).any():
                break
        return plan


class WholeScenes(TorchDataset[dict[str, Any]]):
    """Whole scenes with their raw data type."""

    def __init__(self, store: SceneStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self._store.image(index),
            "target": self._store.mask(index),
            "name": self._store.samples[index].name,
        }


class FixedCrops(TorchDataset[dict[str, Any]]):
    """At most ``count`` crops, evenly spread over all scenes, that never change."""

    def __init__(self, store: SceneStore, *, size: int, count: int, offset: int, layers: Mapping[str, Layer]) -> None:
        self._store = store
        self._offset = offset
        self._layers = layers
        plans = [
            # A scene smaller than a crop lies in its middle.
            CropPlan(
                index + offset,
                window.row - (size - window.height) // 2,
                window.col - (size - window.width) // 2,
                size,
                size,
                size,
            )
            for index in range(len(store))
            for window in tiling.grid(*store.shape(index), tile=size, overlap=0)
        ]
        self.plans = [plans[place] for place in _spread(len(plans), count)]

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        plan = self.plans[index]
        place = plan.sample - self._offset
        return _tensors(_read(self._store, place, plan, self._layers))


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack crops to a batch; images and layers keep channels-last memory."""
    return {name: _stacked([item[name] for item in items]) for name in items[0]}


def _stacked(values: list[Any]) -> Tensor:
    if not isinstance(values[0], Tensor):
        return torch.tensor(values)
    if values[0].ndim == 3:
        return torch.stack([value.permute(1, 2, 0) for value in values]).permute(0, 3, 1, 2)
    return torch.stack(values)


def _read(store: SceneStore, index: int, plan: CropPlan, layers: Mapping[str, Layer]) -> dict[str, Any]:
    """Cut a crop of the scene with that number in the store; only pixels that have a value are inside."""
    rows = _rows(plan)
    crop = {
        "image": cut(store.image(index, rows), plan),
        "target": cut(store.mask(index, rows), plan, fill=IGNORE_INDEX, order="nearest"),
        "inside": inside(plan, store.shape(index), store.valid(index, rows)),
        "sample": plan.sample,
    }
    return crop | {name: cut(layer(plan.sample), plan) for name, layer in layers.items()}


def _tensors(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tensor(value) if isinstance(value, np.ndarray) else value for name, value in item.items()}


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor with channels before rows; numbers are float32 unless they fit a byte."""
    tensor = torch.from_numpy(array if array.dtype.itemsize == 1 else array.astype(np.float32, copy=False))
    return tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor


def _areas(store: SceneStore) -> list[int]:
    return [math.prod(store.shape(index)) for index in range(len(store))]


def epoch_length(store: SceneStore, crops: Crops) -> int:
    """Return the crops of an epoch."""
    crops_wanted = crops.per_epoch or math.ceil(sum(_areas(store)) / crops.size**2)
    return math.ceil(crops_wanted / crops.batch_size) * crops.batch_size


def _chances(store: SceneStore, draw: str) -> list[int]:
    """Return how often each scene is drawn, relative to the others; never one in which no pixel has a value.

    Raises:
        DataError: No pixel of any scene has one.
    """
    areas = [
        area if (valid := store.valid(index)) is None else int(np.count_nonzero(valid))
        for index, area in enumerate(_areas(store))
    ]
    if not any(areas):
        raise DataError(
            f"no pixel of {len(store)} images ({store.samples[0].image}, ...) has a value: all are no-data, NaN or "
            "transparent; choose other images"
        )
    return areas if draw == "area" else [min(area, 1) for area in areas]


def _rows(plan: CropPlan) -> slice:
    """Return the rows of the scene that a plan looks at."""
    return slice(max(plan.row, 0), plan.row + plan.height)


def _window(plan: CropPlan, array: NDArray[Any]) -> NDArray[Any]:
    """Return what a plan's window covers of an array."""
    return array[_rows(plan), max(plan.col, 0) : plan.col + plan.width]


def _spread(count: int, limit: int) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spaced."""
    taken = min(count, limit)
    return [(2 * place + 1) * count // (2 * taken) for place in range(taken)]
