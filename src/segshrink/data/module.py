"""Training crops and validation scenes as a Lightning data module."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from segshrink import tiling
from segshrink.classes import IGNORE_INDEX
from segshrink.config import Augmentation, Crops
from segshrink.data.augmentation import photometric, value_range
from segshrink.data.class_positions import ClassPositions
from segshrink.data.crops import CropPlan, cut, inside, plan_crop
from segshrink.data.epochs import EpochLoader, EpochSampler, local_batch_size
from segshrink.data.sources import Dataset
from segshrink.data.store import Progress, SceneStore
from segshrink.errors import DataError

# Crops that validation losses are measured on: a share of an epoch's training crops, within bounds. Without gradients
# they cost about a thirtieth of the epoch.
_LOSS_SHARE, _LOSS_CROPS = 1 / 8, (16, 32)
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
    the image has no value; ``sample``, the scene's number: labelled scenes first, then unlabelled ones; and one entry
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

    Raises:
        DataError: There is no labelled scene, or no pixel of the scenes of a kind has a value.
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
    ) -> None:
        if len(labeled) == 0:
            raise DataError("there is no labelled image to train on; check the data set's 'split'")
        self.crops = crops
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0
        self._stores = [labeled] if unlabeled is None or len(unlabeled) == 0 else [labeled, unlabeled]
        self._chances = [np.cumsum(_chances(store, crops.draw), dtype=np.float64) for store in self._stores]
        self._layers = dict(layers or {})
        self._limits = value_range(labeled.image(index) for index in _spread(len(labeled), _RANGE_IMAGES))
        self._positions: ClassPositions | None = None
        if crops.rare_class_share > 0:
            self._positions = ClassPositions((labeled.mask(index) for index in range(len(labeled))), seed=seed)

    def __len__(self) -> int:
        """Crops of an epoch: a multiple of the batch size that covers the labelled area once, or ``per_epoch``."""
        return _epoch_length(self._stores[0], self.crops)

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


class CropModule(lightning.LightningDataModule):
    """Random training crops, and validation on whole scenes and on fixed crops.

    Training batches are mappings: ``image`` (N, bands, size, size) raw pixels in channels-last memory, ``target``
    (N, size, size) int64, ``inside`` (N, size, size) bool (pixels with a value), ``sample`` (N,) int64 numbers into
    ``sample_names``. Which crops a step sees depends on the seed, the epoch and the step only, whatever the number of
    data loading processes, of distributed processes (set ``use_distributed_sampler=False``), or of interruptions.

    ``val_dataloader`` returns two loaders. The first gives one whole scene a batch, as arrays that are read from the
    disk where they are used: ``image`` (H, W, bands), ``target`` (H, W) uint8 and ``name``. The second gives batches
    like training ones, of at most 32 crops that are the same every time and not augmented. Distributed processes all
    see all of both.

    Args:
        dataset: What to train and validate on.
        crops: Size, number and mix of crops.
        augmentation: How training crops are changed; what it leaves to the data is settled here.
        seed: Where all random numbers come from.
        use_unlabeled: Whether unlabelled scenes join; they teach a student only.
        folder: Cache folder of decoded images; None is ``$SEGSHRINK_CACHE`` or the user's cache folder.
        progress: Called with (samples done, all samples) while images are decoded, for each part of the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        crops: Crops | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        use_unlabeled: bool = False,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.crops = crops or Crops()
        self.augmentation = (augmentation or Augmentation()).resolved(georeferenced=dataset.georeferenced)
        self.seed = seed
        self.unlabeled = dataset.unlabeled if use_unlabeled else ()
        self.layers: dict[str, Layer] = {}
        self._folder = folder
        self._progress = progress
        self._stores: tuple[SceneStore, SceneStore, SceneStore] | None = None

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the scenes by the number in ``sample``: labelled, unlabelled, then validation scenes."""
        return tuple(sample.name for sample in (*self.dataset.train, *self.unlabeled, *self.dataset.val))

    @property
    def train_store(self) -> SceneStore:
        """Decoded labelled training scenes."""
        return self._opened()[0]

    @property
    def unlabeled_store(self) -> SceneStore:
        """Decoded unlabelled scenes; empty if they don't join."""
        return self._opened()[1]

    @property
    def val_store(self) -> SceneStore:
        """Decoded validation scenes."""
        return self._opened()[2]

    def setup(self, stage: str | None = None) -> None:
        """Decode all images that the cache doesn't hold yet.

        Raises:
            FileError: A file is missing, damaged or unreadable; the cache folder can't be written.
            DataError: Image and mask don't fit together.
        """
        self._opened()

    def add_layer(self, name: str, layer: Layer) -> None:
        """Cut something else along with the images, such as a teacher's cached answers; call it before training.

        Args:
            name: The batches' new key; its value is (N, channels, size, size), uint8 or else float32, in channels-last
                memory.
            layer: Called with a number into ``sample_names``, returns (H, W, channels) over that scene's pixels. Must
                be picklable when data loading processes are spawned rather than forked.
        """
        self.layers[name] = layer

    def train_crops(self) -> CropDataset:
        """Return the training crops as a torch data set, indexed by position or by (epoch, position)."""
        return CropDataset(
            self.train_store,
            self.unlabeled_store,
            crops=self.crops,
            augmentation=self.augmentation,
            seed=self.seed,
            layers=self.layers,
        )

    def train_dataloader(self) -> EpochLoader:
        """Return the loader of training batches; it knows the trainer's epoch and, after a resume, its step."""
        crops = self.train_crops()
        sampler = EpochSampler(len(crops), batch_size=self.crops.batch_size, finished=self._finished_steps)
        if self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        workers = _default_workers() if self.crops.workers is None else self.crops.workers
        return EpochLoader(
            crops,
            batch_size=local_batch_size(self.crops.batch_size),
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Return the loaders of whole scenes and of fixed crops."""
        scenes = DataLoader(_WholeScenes(self.val_store), batch_size=None, collate_fn=_unchanged)
        offset = len(self.dataset.train) + len(self.unlabeled)
        least, most = _LOSS_CROPS
        count = min(most, max(least, int(_LOSS_SHARE * _epoch_length(self.train_store, self.crops))))
        crops = _FixedCrops(self.val_store, size=self.crops.size, count=count, offset=offset, layers=self.layers)
        return [scenes, EpochLoader(crops, batch_size=local_batch_size(self.crops.batch_size), collate_fn=collate)]

    def _opened(self) -> tuple[SceneStore, SceneStore, SceneStore]:
        if self._stores is None:
            parts = (self.dataset.train, self.unlabeled, self.dataset.val)
            train, unlabeled, val = (
                SceneStore(part, self.dataset.classes, folder=self._folder, progress=self._progress) for part in parts
            )
            self._stores = (train, unlabeled, val)
        return self._stores

    def _finished_steps(self) -> int:
        """Return how many batches of the current epoch were trained on before an interruption."""
        if self.trainer is None:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack crops to a batch; images and layers keep channels-last memory."""
    return {name: _stacked([item[name] for item in items]) for name in items[0]}


def _unchanged(scene: Any) -> Any:
    return scene


def _stacked(values: list[Any]) -> Tensor:
    if not isinstance(values[0], Tensor):
        return torch.tensor(values)
    if values[0].ndim == 3:
        return torch.stack([value.permute(1, 2, 0) for value in values]).permute(0, 3, 1, 2)
    return torch.stack(values)


class _WholeScenes(TorchDataset[dict[str, Any]]):
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


class _FixedCrops(TorchDataset[dict[str, Any]]):
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


def _read(store: SceneStore, index: int, plan: CropPlan, layers: Mapping[str, Layer]) -> dict[str, Any]:
    """Cut a crop of the scene with that number in the store; only pixels that have a value are inside."""
    rows = slice(max(plan.row, 0), plan.row + plan.height)
    valid = store.valid(index, rows)
    crop = {
        "image": cut(store.image(index, rows), plan),
        "target": cut(store.mask(index, rows), plan, fill=IGNORE_INDEX, order="nearest"),
        "inside": inside(plan, store.shape(index)) if valid is None else cut(valid, plan, fill=False, order="nearest"),
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


def _epoch_length(store: SceneStore, crops: Crops) -> int:
    """Return the crops of an epoch."""
    wanted = crops.per_epoch or math.ceil(sum(_areas(store)) / crops.size**2)
    return math.ceil(wanted / crops.batch_size) * crops.batch_size


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


def _window(plan: CropPlan, array: NDArray[Any]) -> NDArray[Any]:
    """Return what a plan's window covers of an array."""
    rows, cols = slice(max(plan.row, 0), plan.row + plan.height), slice(max(plan.col, 0), plan.col + plan.width)
    return array[rows, cols]


def _spread(count: int, limit: int) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spaced."""
    taken = min(count, limit)
    return [(2 * place + 1) * count // (2 * taken) for place in range(taken)]


def _default_workers() -> int:
    """Return how many processes load data when the recipe doesn't say.

    On two cores receiving a batch from another process costs about what cutting its crops costs, so there are none. A
    GPU takes batches faster than one process cuts them. Where processes can't be forked, a user's script would have
    to guard its main part, so there are none either unless asked for.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    cores = len(os.sched_getaffinity(0))
    return min(8, cores - 1) if torch.cuda.is_available() else min(4, cores // 4)
