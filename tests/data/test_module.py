"""Training crops, their order under workers, processes and resumes, and the validation loaders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.utils.data import DistributedSampler

from segshrink.classes import ClassMap
from segshrink.config import Augmentation, Crops, DatasetDescription
from segshrink.data import Dataset, Sample, SceneStore
from segshrink.data.crop_dataset import CropDataset, collate
from segshrink.data.crops import cut
from segshrink.data.epochs import EpochLoader, EpochSampler, local_batch_size
from segshrink.data.module import CropModule
from segshrink.errors import ConfigError, DataError

CLASSES = ClassMap.build([("a", None, 0), ("b", None, 1), ("c", None, 2)], [], mask_kind="index")
PLAIN = Augmentation(scale=(1, 1), flips=False, quarter_turns=False, brightness=0, contrast=0, band_gain=0, noise=0)


def write_sample(folder: Path, name: str, height: int, width: int, *, labeled: bool = True) -> Sample:
    rng = np.random.default_rng(list(name.encode()))
    image, mask = folder / f"{name}.png", folder / f"{name}-mask.png"
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image)
    if labeled:
        labels = np.zeros((height, width), np.uint8)
        labels[: height // 2] = 1
        labels[height // 3, width // 3] = 2
        Image.fromarray(labels).save(mask)
    return Sample(name, image, mask if labeled else None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three labelled scenes of 100x120, 200x240 and 40x50 pixels, two unlabelled ones, two to judge."""
    folder = tmp_path_factory.mktemp("scenes")
    description = DatasetDescription.model_validate(
        {
            "name": "small",
            "images": "*.png",
            "classes": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "split": {"random": 0.5},
        }
    )
    return Dataset(
        description=description,
        classes=CLASSES,
        bands=3,
        train=tuple(
            write_sample(folder, f"t{number}", *size) for number, size in enumerate([(100, 120), (200, 240), (40, 50)])
        ),
        val=(write_sample(folder, "v0", 90, 100), write_sample(folder, "v1", 30, 64)),
        unlabeled=tuple(write_sample(folder, f"u{number}", 128, 128, labeled=False) for number in range(2)),
    )


def crop_dataset(dataset: Dataset, *, unlabeled: bool = False, **settings: Any) -> CropDataset:
    augmentation = settings.pop("augmentation", Augmentation())
    layers = settings.pop("layers", None)
    crops = Crops(**{"size": 32, "batch_size": 4, **settings})
    stores = [SceneStore(dataset.train, CLASSES), SceneStore(dataset.unlabeled if unlabeled else (), CLASSES)]
    return CropDataset(*stores, crops=crops, augmentation=augmentation, seed=5, layers=layers)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first)


def test_items_have_the_promised_form(dataset: Dataset) -> None:
    crops = crop_dataset(dataset)
    item = crops[0]
    assert item["image"].shape == (3, 32, 32)
    assert item["image"].dtype == torch.uint8
    assert item["target"].shape == item["inside"].shape == (32, 32)
    assert item["target"].dtype == torch.uint8
    assert item["inside"].dtype == torch.bool
    batch = collate([crops[position] for position in range(4)])
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["sample"].dtype == torch.int64
    for number in range(4):
        assert torch.equal(batch["image"][number], crops[number]["image"])


def test_item_depends_on_epoch_and_position_only(dataset: Dataset) -> None:
    crops, again = crop_dataset(dataset), crop_dataset(dataset)
    first = [crops[2, position] for position in range(6)]
    again.set_epoch(2)
    assert all(same(again[position], first[position]) for position in reversed(range(6)))
    again.set_epoch(3)
    assert not any(same(again[position], first[position]) for position in range(6))


def test_plan_tells_what_an_item_shows(dataset: Dataset) -> None:
    settings = PLAIN.model_copy(update={"flips": True, "quarter_turns": True, "scale": (0.5, 2.0)})
    crops = crop_dataset(dataset, augmentation=settings, unlabeled=True)
    for position in range(20):
        plan, item = crops.plan(position, epoch=1), crops[1, position]
        assert item["sample"] == plan.sample
        sample = (*dataset.train, *dataset.unlabeled)[plan.sample]
        expected = cut(np.asarray(Image.open(sample.image)), plan)
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), expected)


def test_length_covers_the_labelled_area_in_whole_batches(dataset: Dataset) -> None:
    area = 100 * 120 + 200 * 240 + 40 * 50
    assert len(crop_dataset(dataset)) == -(-area // 32**2 // 4) * 4 == 64
    assert len(crop_dataset(dataset, per_epoch=9)) == 12


def test_scenes_are_drawn_by_area_and_share(dataset: Dataset) -> None:
    crops = crop_dataset(dataset, unlabeled=True, unlabeled_share=0.25)
    drawn = np.bincount([crops.plan(position, epoch=0).sample for position in range(4000)], minlength=5) / 4000
    areas = np.array([100 * 120, 200 * 240, 40 * 50])
    np.testing.assert_allclose(drawn[:3], 0.75 * areas / areas.sum(), atol=0.025)
    np.testing.assert_allclose(drawn[3:], 0.125, atol=0.025)


def test_scenes_are_drawn_equally_often_when_wanted(dataset: Dataset) -> None:
    crops = crop_dataset(dataset, draw="image")
    drawn = np.bincount([crops.plan(position, epoch=0).sample for position in range(3000)], minlength=3) / 3000
    np.testing.assert_allclose(drawn, 1 / 3, atol=0.03)


def test_unlabelled_targets_are_ignored_but_inside(dataset: Dataset) -> None:
    crops = crop_dataset(dataset, unlabeled=True, unlabeled_share=1.0, augmentation=PLAIN)
    for position in range(5):
        item = crops[position]
        assert item["sample"] >= 3
        assert (item["target"] == 255).all()
        assert item["inside"].all()


def test_target_is_ignored_outside_the_scene(dataset: Dataset) -> None:
    crops = crop_dataset(dataset, size=128, augmentation=PLAIN)
    reaching = [item for item in (crops[position] for position in range(12)) if not item["inside"].all()]
    assert reaching
    for item in reaching:
        assert torch.equal(item["target"] == 255, ~item["inside"])


def test_rare_classes_are_centred(dataset: Dataset) -> None:
    usual, rare = (crop_dataset(dataset, rare_class_share=share, augmentation=PLAIN) for share in (0.0, 1.0))
    found = [np.mean([(crops[n]["target"] == 2).any().item() for n in range(300)]) for crops in (usual, rare)]
    # Class 2 has one pixel a scene: a third of the crops is centered on it, which of the scenes hardly matters.
    assert found[0] < 0.15
    assert found[1] > 0.25


def test_layers_are_cut_with_the_image(dataset: Dataset) -> None:
    store = SceneStore(dataset.train, CLASSES)
    settings = PLAIN.model_copy(update={"flips": True, "quarter_turns": True})
    crops = crop_dataset(
        dataset, augmentation=settings, layers={"teacher": lambda number: store.image(number).astype(np.float16)}
    )
    batch = collate([crops[position] for position in range(8)])
    assert batch["teacher"].dtype == torch.float32
    assert torch.equal(batch["teacher"], batch["image"].float())


def test_sixteen_bit_images_come_as_float() -> None:
    class Store:
        def __len__(self) -> int:
            return 1

        def shape(self, index: int) -> tuple[int, int]:
            return 64, 64

        def image(self, index: int, rows: slice | None = None) -> np.ndarray:
            return np.arange(64 * 64 * 5, dtype=np.uint16).reshape(64, 64, 5)

        def mask(self, index: int, rows: slice | None = None) -> np.ndarray:
            return np.zeros((64, 64), np.uint8)

        def valid(self, index: int, rows: slice | None = None) -> None:
            return None

    crops = CropDataset(Store(), crops=Crops(size=64), augmentation=PLAIN, seed=0)  # type: ignore[arg-type]
    image = crops[0]["image"]
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), Store().image(0))


def test_no_labelled_scene_is_an_error() -> None:
    with pytest.raises(DataError, match="no labeled image"):
        CropDataset(SceneStore((), CLASSES), crops=Crops(), augmentation=PLAIN, seed=0)


def module(dataset: Dataset, *, workers: int | None = 0, **settings: Any) -> CropModule:
    crops = Crops(**{"size": 32, "batch_size": 4, "per_epoch": 12, "workers": workers, **settings})
    return CropModule(dataset, crops=crops, augmentation=Augmentation(), seed=5, use_unlabeled=True)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_workers_change_nothing(dataset: Dataset) -> None:
    alone = list(module(dataset).train_dataloader())
    helped = list(module(dataset, workers=2).train_dataloader())
    assert len(alone) == len(helped) == 3
    assert all(same(first, second) for first, second in zip(alone, helped, strict=True))
    assert alone[0]["target"].dtype == torch.int64
    assert helped[0]["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("cores", "cuda", "expected"), [(1, False, 0), (2, False, 0), (16, False, 4), (2, True, 1), (64, True, 8)]
)
def test_workers_suit_the_machine(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, cores: int, cuda: bool, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert module(dataset, workers=None).train_dataloader().num_workers == expected
    assert module(dataset, workers=1).train_dataloader().num_workers == 1


def test_unlabelled_scenes_join_only_when_wanted(dataset: Dataset) -> None:
    supervised = CropModule(dataset, crops=Crops(size=32), augmentation=Augmentation(), seed=0, use_unlabeled=False)
    assert len(supervised.unlabeled_store) == 0
    assert supervised.sample_names == ("t0", "t1", "t2", "v0", "v1")
    joined = module(dataset)
    assert joined.sample_names == ("t0", "t1", "t2", "u0", "u1", "v0", "v1")
    samples = torch.cat([batch["sample"] for batch in joined.train_dataloader()])
    assert (samples >= 3).any()
    assert (samples < 5).all()


def test_scene_loader_gives_every_scene_whole(dataset: Dataset) -> None:
    scenes, _ = module(dataset).val_dataloader()
    found = list(scenes)
    assert [batch["name"] for batch in found] == ["v0", "v1"]
    for batch, sample in zip(found, dataset.val, strict=True):
        np.testing.assert_array_equal(batch["image"], np.asarray(Image.open(sample.image)))
        assert sample.mask is not None
        np.testing.assert_array_equal(batch["target"], np.asarray(Image.open(sample.mask)))


def test_loss_crops_never_change_and_cover_all_scenes(dataset: Dataset) -> None:
    first, second = (list(module(dataset).val_dataloader()[1]) for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))
    samples = torch.cat([batch["sample"] for batch in first])
    assert len(samples) <= 32
    assert set(samples.tolist()) == {5, 6}
    assert first[0]["target"].dtype == torch.int64
    # v0 is 90 x 100: 3 x 4 windows cover each of its pixels, so the crops together show all of them.
    shown = torch.cat([batch["target"][batch["sample"] == 5].flatten() for batch in first])
    assert set(shown.tolist()) == {0, 1, 2}
    # v1 is 30 pixels high, so one row is missing above and below.
    small = torch.cat([batch["inside"][batch["sample"] == 6] for batch in first])
    assert not small[:, [0, -1]].any()
    assert small[:, 1:-1].all()


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Pretend to be one of two processes; set the list's only item to say which."""
    rank = [0]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: rank[0])
    return rank


def test_processes_share_each_step(dataset: Dataset, two_processes: list[int]) -> None:
    loaders = []
    for rank in range(2):
        two_processes[0] = rank
        loaders.append(list(module(dataset).train_dataloader()))
    crops = module(dataset).train_crops()
    assert len(loaders[0]) == len(loaders[1]) == 3
    for step in range(3):
        parts = [loader[step]["image"] for loader in loaders]
        together = torch.cat(parts)
        expected = torch.stack([crops[0, position]["image"] for position in range(4 * step, 4 * step + 4)])
        assert torch.equal(together, expected)


def test_processes_must_share_a_step_evenly(two_processes: list[int]) -> None:
    assert local_batch_size(6) == 3
    with pytest.raises(ConfigError, match=r"crops\.batch_size is 5"):
        local_batch_size(5)


def test_crops_are_not_shared_twice(dataset: Dataset) -> None:
    """Lightning puts a sampler of its own into loaders unless it is told not to."""
    shared = EpochLoader(crop_dataset(dataset), sampler=DistributedSampler(range(12), num_replicas=2, rank=0))
    with pytest.raises(ConfigError, match="use_distributed_sampler=False"):
        next(iter(shared))


def test_sampler_skips_finished_steps() -> None:
    sampler = EpochSampler(12, batch_size=4, finished=lambda: 2)
    sampler.set_epoch(7)
    assert list(sampler) == [(7, 8), (7, 9), (7, 10), (7, 11)]
    assert len(sampler) == 12


class Recorder(lightning.LightningModule):
    """Notes which crops each step saw; stops in the middle of a step, leaving a checkpoint."""

    def __init__(self, folder: Path, stop_at: int | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, tuple[int, ...]]] = []
        self.stop_at = stop_at

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == self.stop_at:
            self.trainer.save_checkpoint(self.folder / "broken-off.ckpt")
            raise RuntimeError("interrupted")
        sums = batch["image"].long().sum(dim=(1, 2, 3)).tolist()
        self.seen.append((self.trainer.current_epoch, self.global_step, tuple(sums)))
        return self.weight.sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        assert ("name" in batch) == (dataloader_idx == 0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(
    dataset: Dataset, folder: Path, *, workers: int = 0, stop_at: int | None = None, checkpoint: str | None = None
) -> Recorder:
    recorder = Recorder(folder, stop_at)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[
            ModelCheckpoint(folder, "step-{step}", every_n_train_steps=1, save_top_k=-1, enable_version_counter=False),
        ],
    )
    trainer.fit(recorder, module(dataset, workers=workers), ckpt_path=checkpoint, weights_only=True)
    return recorder


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("workers", [0, 1])
def test_training_resumes_with_the_crops_it_would_have_seen(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    whole = fit(dataset, tmp_path / "whole", workers=workers).seen
    assert [(epoch, step) for epoch, step, _ in whole] == [(step // 3, step) for step in range(9)]
    crops = module(dataset).train_crops()
    for epoch, step, sums in whole:
        expected = [crops[epoch, 4 * (step % 3) + number]["image"].long().sum().item() for number in range(4)]
        assert list(sums) == expected
    for stop in (2, 3, 7) if workers == 0 else (4,):  # within an epoch and between two
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(dataset, folder, workers=workers, stop_at=stop)
        for name in (f"step-step={stop}", "broken-off"):
            resumed = fit(dataset, folder, workers=workers, checkpoint=str(folder / f"{name}.ckpt"))
            assert resumed.seen == whole[stop:]


def test_crops_come_at_the_working_size_and_scenes_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    description = dataset.description.model_copy(update={"resize": 0.5})
    data = CropModule(
        replace(dataset, description=description),
        crops=Crops(size=32, batch_size=4),
        augmentation=PLAIN,
        use_unlabeled=True,
        folder=tmp_path,
    )
    stores = (data.train_store, data.unlabeled_store, data.val_store, data.val_crops_store)
    assert [store.shape(0) for store in stores] == [(50, 60), (64, 64), (90, 100), (45, 50)]
    scenes, crops = data.val_dataloader()
    assert [scene["image"].shape[:2] for scene in scenes] == [(90, 100), (30, 64)]
    shown = next(iter(crops))
    plan = crops.dataset.plans[0]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(shown["image"][0].permute(1, 2, 0), cut(data.val_crops_store.image(0), plan))
    assert len(data.train_crops()) == 16, "an epoch covers the area at the working size"
