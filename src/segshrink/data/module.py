"""Training crops and validation scenes as a Lightning data module."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from segshrink.config import Augmentation, Crops
from segshrink.data.crop_dataset import CropDataset, FixedCrops, Layer, WholeScenes, collate, epoch_length
from segshrink.data.epochs import EpochLoader, EpochSampler, local_batch_size, process_place
from segshrink.data.sources import Dataset
from segshrink.data.store import Progress, SceneStore
from segshrink.machine import available_cores

# Crops that validation losses are measured on: a share of an epoch's training crops, within bounds. Without gradients
# they cost about a thirtieth of the epoch.
_LOSS_SHARE, _LOSS_CROPS = 1 / 8, (16, 32)


class CropModule(lightning.LightningDataModule):
    """Random training crops, and validation on whole scenes and on fixed crops.

    Training batches are mappings: ``image`` (N, bands, size, size) raw pixels in channels-last memory, ``target``
    (N, size, size) int64, ``inside`` (N, size, size) bool (pixels with a value), ``sample`` (N,) int64 numbers into
    ``sample_names``. Which crops a step sees depends on the seed, the epoch and the step only, whatever the number of
    data loading processes, of distributed processes (set ``use_distributed_sampler=False``), or of interruptions.

    ``val_dataloader`` returns two loaders. The first gives one whole scene a batch, as arrays that are read from the
    disk where they are used: ``image`` (H, W, bands), ``target`` (H, W) uint8 and ``name``. The second gives batches
    like training ones, of at most 32 crops that are the same every time and not augmented. Distributed processes share
    the scenes, and all see all of the crops.

    Where the data set has a working size, crops are cut from images that were brought there, and whole scenes stay as
    they are.

    Args:
        dataset: What to train and validate on.
        crops: Size, number and mix of crops.
        augmentation: How training crops are changed; what it leaves to the data is settled here.
        seed: Where all random numbers come from.
        use_unlabeled: Whether unlabeled scenes join; those without a teacher or consistency learn nothing from them.
        recolored: As in ``CropDataset``.
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
        recolored: Augmentation | None = None,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than validation scenes
        self.dataset = dataset
        self.crops = crops or Crops()
        self.augmentation = (augmentation or Augmentation()).resolved(georeferenced=dataset.georeferenced)
        self.seed = seed
        self.unlabeled = dataset.unlabeled if use_unlabeled else ()
        self.layers: dict[str, Layer] = {}
        self._recolored = recolored
        self._folder = folder
        self._progress = progress
        self._stores: tuple[SceneStore, ...] | None = None

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the scenes by the number in ``sample``: labeled, unlabeled, then validation scenes."""
        return tuple(sample.name for sample in (*self.dataset.train, *self.unlabeled, *self.dataset.val))

    @property
    def train_store(self) -> SceneStore:
        """Decoded labeled training scenes."""
        return self._opened()[0]

    @property
    def unlabeled_store(self) -> SceneStore:
        """Decoded unlabeled scenes; empty if they don't join."""
        return self._opened()[1]

    @property
    def val_store(self) -> SceneStore:
        """Decoded validation scenes, as they are."""
        return self._opened()[2]

    @property
    def val_crops_store(self) -> SceneStore:
        """Decoded validation scenes at the working size, from which crops are cut."""
        return self._opened()[3]

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
            recolored=self._recolored,
            doubted_weight=1.0 if (decided := self.dataset.description.label_errors) is None else decided.weight,
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
        rank, processes = process_place()
        numbers = range(rank, len(self.val_store), processes)
        scenes = DataLoader(WholeScenes(self.val_store), batch_size=None, sampler=numbers, collate_fn=_unchanged)
        offset = len(self.dataset.train) + len(self.unlabeled)
        least, most = _LOSS_CROPS
        count = min(most, max(least, int(_LOSS_SHARE * epoch_length(self.train_store, self.crops))))
        crops = FixedCrops(self.val_crops_store, size=self.crops.size, count=count, offset=offset, layers=self.layers)
        return [scenes, EpochLoader(crops, batch_size=self.crops.batch_size, collate_fn=collate)]

    def _opened(self) -> tuple[SceneStore, ...]:
        if self._stores is None:
            dataset, resize = self.dataset, self.dataset.description.resize
            store = partial(SceneStore, classes=dataset.classes, folder=self._folder, progress=self._progress)
            train, unlabeled = (store(part, resize=resize) for part in (dataset.train, self.unlabeled))
            val = store(dataset.val)
            self._stores = (train, unlabeled, val, val if resize is None else store(dataset.val, resize=resize))
        return self._stores

    def _finished_steps(self) -> int:
        """Return how many batches of the current epoch were trained on before an interruption."""
        if self.trainer is None:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def _unchanged(scene: Any) -> Any:
    return scene


def _default_workers() -> int:
    """Return how many processes load data when the recipe doesn't say.

    On two cores receiving a batch from another process costs about what cutting its crops costs, so there are none. A
    GPU takes batches faster than one process cuts them. Where processes can't be forked, a user's script would have
    to guard its main part, so there are none either unless asked for.
    """
    if sys.platform != "linux":
        return 0
    cores = available_cores()
    return min(8, cores - 1) if torch.cuda.is_available() else min(4, cores // 4)
