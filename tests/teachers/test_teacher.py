from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.models import build_model
from segshrink.teachers import Teacher, open_teacher

CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None), ("Road", "#808080", None)])


def reordered(*names: str) -> ClassMap:
    colors = {"Land": "#804000", "Water": "#0000FF", "Road": "#808080", "Roof": "#FF0000"}
    return ClassMap.build([(name, colors[name], None) for name in names])


class Fixed(nn.Module):
    """Answers every image with the same (1, C, H, W) map."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        self.norm(images.float())
        return self.answer.expand(len(images), -1, -1, -1)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_stays_frozen_though_its_model_is_switched_to_training(images: Tensor) -> None:
    teacher = Teacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}))
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    teacher.model.train()
    first, second = teacher.logits(images), teacher.logits(images)
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())


def test_classes_are_matched_by_name(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", reordered("Road", "Land", "Water"), options={"width": 4, "depth": 2}).save(tmp_path / "model")
    own = open_teacher(tmp_path / "model", reordered("Road", "Land", "Water"))
    mapped = open_teacher(tmp_path / "model", CLASSES)
    assert own.order is None
    assert torch.equal(mapped.logits(images), own.logits(images)[:, [1, 2, 0]])


def test_other_classes_or_bands_are_refused(tmp_path: Path) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    with pytest.raises(ModelError, match="Land, Water, Road, but Land, Water, Roof"):
        open_teacher(tmp_path / "model", reordered("Land", "Water", "Roof"))
    with pytest.raises(ModelError, match="Land, Water, Road, but Land, Water"):
        open_teacher(tmp_path / "model", reordered("Land", "Water"))
    with pytest.raises(ModelError, match="bands"):
        open_teacher(tmp_path / "model", CLASSES, bands=4)


def test_probabilities_are_turned_into_logits_of_the_same_distribution(images: Tensor) -> None:
    logits = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(1)
    teacher = Teacher(Fixed(probabilities))
    assert torch.allclose(teacher.logits(images).softmax(1), probabilities.expand(2, -1, -1, -1), atol=1e-6)
    assert teacher.returns_probabilities
    untouched = Teacher(Fixed(logits))
    assert torch.equal(untouched.logits(images), logits.expand(2, -1, -1, -1))
