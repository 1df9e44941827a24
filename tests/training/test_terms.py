"""The distillation section as terms: lists, presets, alpha; what is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from segshrink.classes import ClassMap
from segshrink.config import Distillation, Term
from segshrink.errors import ConfigError
from segshrink.losses import build_terms
from segshrink.teachers import Teacher
from segshrink.training.terms import student_terms, teaching_temperature

SUPERVISED = [Term(name="cross_entropy"), Term(name="dice", weight=0.5)]
CLASSES = ClassMap.build([(name, None, None) for name in ("Ground", "Roof")])


class Scenes(Teacher):
    """Answers about whole scenes only."""

    whole_scenes = True
    identity = "scenes"

    def logits(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def terms(**section: Any) -> list[tuple[str, float]]:
    return [(term.label, weight) for weight, term in student_terms(Distillation(**section), SUPERVISED)]


def test_alpha_shares_between_the_controls_terms_and_the_teacher() -> None:
    assert terms(alpha=0.25) == [("cross_entropy", 0.25), ("dice", 0.125), ("pixel_kl", 0.75)]
    assert terms(alpha=1.0) == [("cross_entropy", 1.0), ("dice", 0.5)]


def test_a_list_replaces_everything() -> None:
    listed = [{"name": "hint", "weight": 2, "student": "stage:1", "teacher": "stage:2"}, {"name": "pixel_kl"}]
    assert terms(terms=listed) == [("hint@stage:1", 2.0), ("pixel_kl", 1.0)]


def test_a_preset_keeps_the_controls_terms() -> None:
    assert terms(preset="fitnet") == [("cross_entropy", 1.0), ("dice", 0.5), ("pixel_kl", 1.0), ("hint", 10.0)]


def test_confidence_weighs_the_default_too() -> None:
    built = student_terms(Distillation(confidence_weighting=True), SUPERVISED)
    assert [term.by_confidence for _, term in built] == [False, False, True]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"preset": "cwd", "terms": [{"name": "hint"}]}, "both 'preset' and 'terms'"),
        ({"preset": "mdg"}, "did you mean 'mgd'"),
        ({"preset": "dist", "confidence_weighting": True}, r"none of the terms \(cross_entropy, dice, dist\)"),
        ({"terms": [{"name": "hint"}, {"name": "cosine_hint"}], "teacher_cache": True}, "hint, cosine_hint learn from"),
        ({"preset": "fitnet", "precision": "int8"}, "shows no features, but hint learns from its features"),
        (
            {"preset": "cirkd", "teacher_cache": True},
            r"cross_image_relation learns .*teacher_cache=false.*pixel_kl",
        ),
    ],
)
def test_refusals(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        terms(**section)


def test_a_teacher_of_whole_scenes_wants_a_cache() -> None:
    teacher = Scenes(CLASSES, name="labels:soft")
    with pytest.raises(ConfigError, match=r"'labels:soft' answers about whole scenes.*teacher_cache=true"):
        student_terms(Distillation(), SUPERVISED, teacher)
    assert student_terms(Distillation(teacher_cache=True), SUPERVISED, teacher)


@pytest.mark.parametrize(
    ("listed", "temperature"),
    [
        ([Term(name="cross_entropy")], None),
        ([Term(name="cross_entropy"), Term(name="pixel_kl")], 1),
        ([Term(name="pixel_kl", options={"temperature": 2.0}), Term(name="decoupled_kl")], 4),
        ([Term(name="cross_entropy"), Term(name="cross_image_relation", options={"temperature": 9.0})], None),
        ([Term(name="pixel_kl"), Term(name="channel_kl", student="encoder")], 1),
    ],
)
def test_the_teaching_temperature_is_the_highest_that_logits_are_softened_with(
    listed: list[Term], temperature: float | None
) -> None:
    assert teaching_temperature(build_terms(listed)) == temperature
