"""Terms by name: which pixels each one sees, and errors that name the nearest."""

from __future__ import annotations

import pytest
import torch

from segshrink.config import Term as TermChoice
from segshrink.errors import ConfigError, TrainingError
from segshrink.losses import build_term, build_terms, cross_entropy, pixel_kl, terms_from


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(2, 3, 8, 8, generator=generator)
    teacher = torch.randn(2, 3, 8, 8, generator=generator)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator).to(torch.uint8)
    target[0] = 255  # an unlabelled scene
    inside = torch.ones(2, 8, 8, dtype=torch.bool)
    inside[:, 6:] = False
    target[~inside] = 255
    return student, teacher, target, inside


def test_a_distillation_term_sees_unlabelled_pixels_inside_the_scene(batch):
    student, teacher, target, inside = batch
    term = build_term("pixel_kl", {"temperature": 2.0})
    expected = pixel_kl(student[:, :, :6], teacher[:, :, :6], temperature=2.0)
    assert (term.name, term.needs_teacher, term.labels_only) == ("pixel_kl", True, False)
    assert term(student, teacher, target, inside).item() == pytest.approx(expected.item(), rel=1e-6)
    assert term(student, teacher, target, None).item() == pytest.approx(
        pixel_kl(student, teacher, temperature=2.0).item(), rel=1e-6
    )


def test_a_supervised_term_sees_labelled_pixels_only(batch):
    student, _, target, inside = batch
    term = build_term("cross_entropy", {"label_smoothing": 0.1})
    expected = cross_entropy(student[1:, :, :6], target[1:, :6], label_smoothing=0.1)
    assert (term.needs_teacher, term.labels_only) == (False, True)
    assert term(student, None, target, inside).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "jaccard", "dice", "pixel_kl"])
def test_every_term_is_differentiable(batch, name):
    student, teacher, target, inside = batch
    student.requires_grad_()
    build_term(name)(student, teacher, target, inside).backward()
    assert student.grad[1].any()


def test_alpha_and_temperature_mean_what_they_say(batch):
    student, teacher, target, inside = batch
    total = sum(weight * term(student, teacher, target, inside) for weight, term in terms_from(0.3, 4.0))
    expected = 0.3 * cross_entropy(student, target) + 0.7 * pixel_kl(
        student[:, :, :6], teacher[:, :, :6], temperature=4.0
    )
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_share_of_zero_leaves_its_term_out():
    assert [weighted.term.name for weighted in terms_from(1.0, 2.0)] == ["cross_entropy"]
    assert [weighted.term.name for weighted in terms_from(0.0, 2.0)] == ["pixel_kl"]


def test_terms_of_a_recipe_keep_their_order_and_weight():
    terms = build_terms([TermChoice(name="dice", weight=2.0), TermChoice(name="jaccard", weight=0.5)])
    assert [(weight, term.name) for weight, term in terms] == [(2.0, "dice"), (0.5, "jaccard")]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross_entrpy", {}, "did you mean 'cross_entropy'"),
        ("pixel_kl", {"temprature": 2}, "did you mean 'temperature'"),
        ("pixel_kl", {"ignore_index": 0}, "no option 'ignore_index'"),
        ("pixel_kl", {"temperature": 0}, "above 0, found 0"),
        ("pixel_kl", {"temperature": "hot"}, "found 'hot'"),
        ("pixel_kl", {"temperature": float("nan")}, "above 0"),
        ("pixel_kl", {"standardize": 1}, "true or false"),
        ("cross_entropy", {"label_smoothing": 1.5}, "from 0 to 1"),
        ("cross_entropy", {"class_weights": [1, -1]}, "list of numbers"),
        ("dice", {"smooth": -1}, "at least 0"),
    ],
)
def test_refuses_with_a_sentence_that_helps(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_term(name, options)


@pytest.mark.parametrize(("alpha", "temperature"), [(1.5, 1), (-0.1, 1), (float("nan"), 1), (0.5, 0)])
def test_refuses_alpha_and_temperature_out_of_range(alpha, temperature):
    with pytest.raises(ConfigError, match=r"alpha|temperature"):
        terms_from(alpha, temperature)


def test_refuses_a_list_without_weight():
    with pytest.raises(ConfigError, match="weight above 0"):
        build_terms([TermChoice(name="dice", weight=0)])


def test_a_distillation_term_without_teacher_is_an_error(batch):
    student, _, target, inside = batch
    with pytest.raises(TrainingError, match="pixel_kl"):
        build_term("pixel_kl")(student, None, target, inside)
