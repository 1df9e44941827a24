"""Learning from unlabeled images without a teacher."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from segshrink.config import Consistency, Recipe
from segshrink.errors import ConfigError
from segshrink.training import SegmentationTask, train
from segshrink.training.consistency import SelfTeacher, consistency_loss

from .conftest import write_scene
from .test_resume import changed, stop_at


class Colors(nn.Module):
    """Its logits are the image's bands."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.gain


def test_only_sure_pixels_of_unlabeled_crops_get_pseudo_labels():
    network = Colors()
    images = torch.zeros(2, 2, 1, 3)
    images[:, 1] = torch.tensor([[-9.0, 1.0, 9.0]])
    targets = torch.full((2, 1, 3), 255)
    targets[1, 0, 0] = 0
    labels = SelfTeacher(network, Consistency(threshold=0.9)).labels(images, targets, None)
    assert labels.tolist() == [[[0, 255, 1]], [[255, 255, 255]]]
    inside = torch.tensor([[[True, True, False]]] * 2)
    labels = SelfTeacher(network, Consistency(threshold=0.9)).labels(images, targets, inside)
    assert labels[0].tolist() == [[0, 255, 255]]


class Foreign(nn.Module):
    """Gives one channel at half the size in a dictionary, as networks of other libraries do."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        assert images.is_floating_point()
        return {"aux": images, "out": nn.functional.avg_pool2d(images[:, :1], 2)}


def test_it_is_asked_as_the_task_asks_the_network() -> None:
    task = SegmentationTask(Foreign(), consistency=Consistency(threshold=0.95))
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    images[..., 2:] = 9
    labels = task.self_teacher.labels(images, torch.full((1, 4, 4), 255), None)
    confidence, classes = task(images).softmax(dim=1).max(dim=1)
    assert labels.tolist() == classes.masked_fill(confidence < 0.95, 255).tolist()
    assert labels[0, 0].tolist() == [255, 255, 1, 1]


def test_the_average_follows_and_never_learns_itself():
    network = Colors()
    teacher = SelfTeacher(network, Consistency(ema_decay=0.9))
    teacher.update(network)
    network.gain.data += 1
    teacher.update(network)
    assert float(teacher.average.module.gain) == pytest.approx(1 + 9 / 11)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 6), (2, 4)])
def test_the_average_follows_each_step_of_the_optimizer(accumulate: int, updates: int) -> None:
    task = SegmentationTask(nn.Conv2d(3, 2, 1), consistency=Consistency())
    batch = {"image": torch.zeros(2, 3, 8, 8), "target": torch.full((2, 8, 8), 255), "inside": None}
    batch["recolored"] = batch["image"]
    trainer = lightning.Trainer(
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|LeafSpec|val_dataloader).*")
        trainer.fit(task, DataLoader([batch] * 3, batch_size=None))
    assert int(task.self_teacher.average.n_averaged) == updates


def test_the_loss_is_over_all_unlabeled_pixels():
    logits = torch.zeros(1, 2, 1, 4)
    pseudo = torch.tensor([[[0, 255, 255, 255]]])
    targets = torch.tensor([[[255, 255, 1, 1]]])
    assert float(consistency_loss(logits, pseudo, targets)) == pytest.approx(np.log(2) / 2)


@pytest.fixture
def pooled(recipe: Recipe) -> Recipe:
    """A student that learns by consistency, on mixed crops."""
    rng = np.random.default_rng(7)
    for number in range(2):
        write_scene(recipe.data.root / "more", f"u{number}", rng)
    changes = {"crops__per_epoch": 8, "data__unlabeled": "more/images/*.png", "augmentation__cutmix": 0.5}
    return changed(recipe, **changes, student__consistency={"threshold": 0.4}, student__training__epochs=3)


def test_a_control_learns_by_consistency_and_resumes_to_the_same_weights(pooled: Recipe, tmp_path: Path) -> None:
    train(pooled, out=tmp_path / "whole", role="control")
    with pytest.raises(KeyboardInterrupt):
        train(pooled, out=tmp_path / "stopped", role="control", progress=stop_at(3))
    train(pooled, out=tmp_path / "stopped", role="control", resume=True)
    one, other = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any("average" in name for name in one)
    rows = list(csv.DictReader((tmp_path / "whole/metrics.csv").read_text().splitlines()))
    assert all(float(row["train/consistency"]) > 0 for row in rows)
    assert json.loads((tmp_path / "whole/run.json").read_text())["images"]["unlabeled"] == 2


def test_consistency_without_unlabeled_images_and_blends_of_cached_answers_are_refused(
    recipe: Recipe, pooled: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabeled"):
        train(changed(recipe, student__consistency={}), out=tmp_path / "a", role="control")
    blends = changed(pooled, augmentation__mixup=0.5, distillation__teacher_cache=True)
    with pytest.raises(ConfigError, match="cutmix"):
        train(blends, out=tmp_path / "b", role="student", teacher=lambda: pytest.fail("opened"))
