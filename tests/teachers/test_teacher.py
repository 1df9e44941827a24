from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.errors import ModelError
from segshrink.models import build_model
from segshrink.teachers import TorchTeacher, open_teacher

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
    teacher = TorchTeacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}))
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    teacher.module.train()
    first, second = teacher.logits(images), teacher.logits(images)
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_classes_are_matched_by_name(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", reordered("Road", "Land", "Water"), options={"width": 4, "depth": 2}).save(tmp_path / "model")
    own = open_teacher(tmp_path / "model", reordered("Road", "Land", "Water"))
    mapped = open_teacher(tmp_path / "model", CLASSES)
    assert own.known == mapped.known == (0, 1, 2)
    assert torch.equal(mapped.logits(images), own.logits(images)[:, [1, 2, 0]])


def test_classes_it_does_not_know_are_excluded(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    teacher = open_teacher(tmp_path / "model", reordered("Land", "Roof", "Water"))
    assert teacher.known == (0, 2)
    probabilities = teacher.logits(images).softmax(1)
    assert (probabilities[:, 1] == 0).all()
    assert torch.allclose(probabilities.sum(1), torch.ones(1))


def test_several_of_its_classes_stand_for_one(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    dry = ClassMap.build([("Wet", "#0000FF", None), ("Dry", "#804000", None)])
    source = TeacherSource(source=str(tmp_path / "model"), classes={"Wet": "water", "Dry": ["Land", "Road"]})
    mapped, own = open_teacher(source, dry).logits(images), open_teacher(tmp_path / "model", CLASSES).logits(images)
    assert torch.allclose(mapped.softmax(1)[:, 1], own.softmax(1)[:, [0, 2]].sum(1), atol=1e-6)


def test_classes_or_bands_that_never_match_are_refused(tmp_path: Path) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    with pytest.raises(ModelError, match="share no name"):
        open_teacher(tmp_path / "model", reordered("Roof"))
    with pytest.raises(ModelError, match="bands"):
        open_teacher(tmp_path / "model", CLASSES, bands=4)
    source = TeacherSource(source=str(tmp_path / "model"), classes={"Land": "Watre"})
    with pytest.raises(ModelError, match=r"no class 'Watre'.*Water"):
        open_teacher(source, CLASSES)


def test_probabilities_are_turned_into_logits_of_the_same_distribution(images: Tensor) -> None:
    logits = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(1)
    teacher = TorchTeacher(Fixed(probabilities), CLASSES)
    assert torch.allclose(teacher.logits(images).softmax(1), probabilities.expand(2, -1, -1, -1), atol=1e-6)
    assert teacher.returns_probabilities
    untouched = TorchTeacher(Fixed(logits), CLASSES)
    assert torch.equal(untouched.logits(images), logits.expand(2, -1, -1, -1))
