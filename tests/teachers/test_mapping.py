"""A teacher's classes as the student's, and what it says about pixels of classes that nobody mapped."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.losses import build_term
from segshrink.teachers import Augmented, ClassMapping, Ensemble, TorchTeacher, map_classes

STUDENT = ClassMap.build([("Road", None, None), ("Crop", None, None)])


def pixel(*probabilities: float) -> Tensor:
    """Logits (1, K, 1, 1) of one pixel."""
    return torch.tensor(probabilities).log().view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("probabilities", "speaks"),
    [
        ((0.6, 0.3, 0.1), True),
        ((0.3, 0.21, 0.49), True),
        ((0.3, 0.19, 0.51), False),
        ((0.00009, 0.00001, 0.9999), False),
    ],
)
def test_a_pixel_is_silent_where_mapped_classes_hold_less_than_half(
    probabilities: tuple[float, ...], speaks: bool
) -> None:
    mapping = map_classes(STUDENT.names, ("road", "crop", "water"))
    found = mapping.apply(pixel(*probabilities)).flatten()
    expected = torch.tensor(probabilities[:2]).log() if speaks else torch.zeros(2)
    assert torch.equal(found, expected)
    assert mapping.overlooked(pixel(*probabilities)) == (set() if probabilities[2] < 0.4 else {2})


def test_several_unmapped_classes_count_together_and_several_mapped_ones_too() -> None:
    mapping = map_classes(
        ("Road", "Green", "Sky"), ("road", "tree", "grass", "pond", "sea"), {"Green": ["tree", "grass"]}
    )
    assert mapping.known == (0, 1)
    silent = mapping.apply(pixel(0.2, 0.2, 0.08, 0.26, 0.26)).flatten()
    assert silent.tolist() == [0, 0, -torch.inf]
    speaks = mapping.apply(pixel(0.2, 0.2, 0.12, 0.24, 0.24)).flatten()
    assert torch.allclose(speaks.exp(), torch.tensor([0.2, 0.32, 0]))


def test_a_single_known_class_is_heard_against_all_others() -> None:
    mapping = map_classes(STUDENT.names, ("crop", "water", "sky"))
    found = mapping.apply(pixel(0.1, 0.5, 0.4) + 3).flatten()
    assert found[0] == -torch.inf
    assert found[1].sigmoid() == pytest.approx(0.1)
    merged = map_classes(STUDENT.names, ("maize", "wheat", "sky"), {"Crop": ["maize", "wheat"]})
    assert merged.apply(pixel(0.1, 0.5, 0.4) - 2)[0, 1].sigmoid() == pytest.approx(0.6)


def test_silent_pixels_teach_nothing() -> None:
    mapping = map_classes(STUDENT.names, ("road", "crop", "water"))
    teacher = mapping.apply(torch.cat([pixel(0.0001, 0.0001, 0.9998), pixel(0.7, 0.2, 0.1)], dim=3))
    student = torch.randn(1, 2, 1, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    build_term("pixel_kl")(student, teacher, torch.full((1, 1, 2), 255)).backward()
    assert student.grad is not None
    assert (student.grad[..., 0] == 0).all()
    assert (student.grad[..., 1] != 0).all()


class Says(nn.Module):
    """Answers the same logits everywhere."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1, *images.shape[2:])


def test_what_was_overlooked_is_known_by_name_through_views_and_ensembles() -> None:
    mapping = map_classes(STUDENT.names, ("road", "crop", "water", "sky"))
    parts = [TorchTeacher(Says(pixel(0.1, 0.1, 0.7, 0.1)), STUDENT, mapping) for _ in range(2)]
    teacher = Augmented(Ensemble(parts, [1, 1]), flips=True)
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert teacher.overlooked == ()
    logits = teacher.logits(images)
    assert teacher.overlooked == ("water",)
    assert torch.equal(logits.amax(1), logits.amin(1))  # still nothing is said


@pytest.mark.parametrize(
    ("aliases", "names"),
    [
        ({"Background": "tree"}, ["Background", "tree"]),
        ({"Background": ["background", "tree"]}, []),
        ({"Background": "tree", "Road": ["road", "background"]}, []),
    ],
)
def test_an_alias_that_takes_the_place_of_an_equal_name_is_told(
    aliases: dict[str, Any], names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        map_classes(("Background", "Road"), ("background", "road", "tree"), aliases)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (1 if names else 0)
    assert all(name in message for name in names for message in told)


def test_names_change_no_mapping() -> None:
    assert map_classes(("a", "b"), ("b", "a")) == ClassMapping(((1,), (0,)))
