"""Terms by name: which pixels each one sees, and errors that name the nearest."""

from __future__ import annotations

import inspect

import pytest
import torch

from segshrink import losses
from segshrink.config import Term as TermChoice
from segshrink.errors import ConfigError, TrainingError
from segshrink.losses import (
    REGISTRY,
    ChannelAdapter,
    MaskedGeneration,
    build_term,
    build_terms,
    cross_entropy,
    label_terms,
    pixel_kl,
    terms_from,
)
from segshrink.losses.options import RULES

ON_LOGITS = ["pixel_kl", "binary_kl", "channel_kl", "dist", "soft_jaccard", "decoupled_kl", "normalized_kl"]
OF_BOTH = ["decoupled_kl", "normalized_kl"]
ON_FEATURES = [name for name, loss in REGISTRY.items() if loss.compares == "features"]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(2, 3, 8, 8, generator=generator)
    teacher = torch.randn(2, 3, 8, 8, generator=generator)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator).to(torch.uint8)
    target[0] = 255  # an unlabeled scene
    inside = torch.ones(2, 8, 8, dtype=torch.bool)
    inside[:, 6:] = False
    target[~inside] = 255
    return student, teacher, target, inside


def test_a_distillation_term_sees_unlabeled_pixels_inside_the_scene(batch):
    student, teacher, target, inside = batch
    term = build_term("pixel_kl", {"temperature": 2.0})
    expected = pixel_kl(student[:, :, :6], teacher[:, :, :6], temperature=2.0)
    assert (term.name, term.needs_teacher, term.labels_only) == ("pixel_kl", True, False)
    assert term(student, teacher, target, inside).item() == pytest.approx(expected.item(), rel=1e-6)
    assert term(student, teacher, target, None).item() == pytest.approx(
        pixel_kl(student, teacher, temperature=2.0).item(), rel=1e-6
    )


def test_a_supervised_term_sees_labeled_pixels_only(batch):
    student, _, target, inside = batch
    term = build_term("cross_entropy", {"label_smoothing": 0.1})
    expected = cross_entropy(student[1:, :, :6], target[1:, :6], label_smoothing=0.1)
    assert (term.needs_teacher, term.labels_only) == (False, True)
    assert term(student, None, target, inside).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "jaccard", "dice", *ON_LOGITS])
def test_every_term_is_differentiable(batch, name):
    student, teacher, target, inside = batch
    student.requires_grad_()
    build_term(name)(student, teacher, target, inside).backward()
    assert student.grad[1].any()
    assert not student.grad[:, :, 6:].any()  # outside the scene


@pytest.mark.parametrize("name", ON_LOGITS)
def test_only_terms_that_use_labels_need_them(batch, name):
    student, teacher, target, inside = batch
    student.requires_grad_()
    build_term(name)(student, teacher, target, inside).backward()
    assert bool(student.grad[0].any()) == (name not in OF_BOTH)  # the first scene is unlabeled


@pytest.mark.parametrize("name", ON_LOGITS)
def test_a_class_that_the_teacher_does_not_know_is_not_compared(batch, name):
    student, teacher, target, inside = batch
    unknown = target == 1
    teacher[:, 1] = -torch.inf
    student.requires_grad_()
    value = build_term(name)(student, teacher, target, inside, known=(0, 2))
    value.backward()
    assert value > 0
    assert not student.grad[:, 1].any()
    assert student.grad[:, 0].any()
    assert not student.grad.movedim(1, -1)[unknown].any()  # pixels labeled as that class
    # Both softmaxes run over the classes that are left, as if there were no others.
    two = target.clone()
    two[unknown] = 255
    two[target == 2] = 1
    without = build_term(name)(student[:, [0, 2]], teacher[:, [0, 2]], two, inside & ~unknown)
    assert value.item() == pytest.approx(without.item(), rel=1e-6)


def test_features_are_compared_whatever_the_teacher_knows(batch):
    student, teacher, target, inside = batch
    values = [build_term("hint")(student, teacher, target, inside, known=known) for known in (None, (0,))]
    assert values[0].item() == pytest.approx((student - teacher).square().mean().item(), rel=1e-6)
    assert values[1] == values[0]


def test_confidence_weighs_every_pixel(batch):
    student, teacher, target, inside = batch
    teacher[0, :, 0] = 0.0  # nothing is known of these pixels
    teacher[0, 0, 1] = 100.0  # everything of these
    weights = (teacher.softmax(1).amax(1) - 1 / 3) / (1 - 1 / 3)
    assert weights[0, 0].abs().max() < 1e-6
    assert (weights[0, 1] - 1).abs().max() < 1e-6
    term = build_term("pixel_kl", {"temperature": 3.0}, by_confidence=True)
    # By hand: T² Σ w KL / Σ w over the pixels inside.
    log_student, log_teacher = (logits.div(3.0).log_softmax(1) for logits in (student, teacher))
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    expected = 9 * (weights * divergence)[inside].sum() / weights[inside].sum()
    assert term(student, teacher, target, inside).item() == pytest.approx(expected.item(), rel=1e-5)


def test_confidence_is_among_the_classes_that_the_teacher_knows(batch):
    student, teacher, target, inside = batch
    teacher[:, 1] = -torch.inf
    term = build_term("pixel_kl", by_confidence=True)
    target[:] = 255
    among_two = term(student[:, [0, 2]], teacher[:, [0, 2]], target, inside)
    assert term(student, teacher, target, inside, known=(0, 2)).item() == pytest.approx(among_two.item(), rel=1e-6)


def test_confidence_weighting_reaches_the_terms_that_can_be_weighed():
    choices = [TermChoice(name=name) for name in ("cross_entropy", "pixel_kl", "dist")]
    terms = build_terms(choices, confidence_weighting=True)
    assert [term.by_confidence for _, term in terms] == [False, True, False]
    for refused in ([TermChoice(name="dist")], [TermChoice(name="pixel_kl", weight=0), TermChoice(name="dist")]):
        with pytest.raises(ConfigError, match=r"weighs the pixels of pixel_kl, and none of the terms \(dist\)"):
            build_terms(refused, confidence_weighting=True)
    with pytest.raises(ConfigError, match="pixel_kl can"):
        build_term("dist", by_confidence=True)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_terms_on_features_compare_maps_of_other_sizes_and_channels(batch, name):
    _, _, target, inside = batch
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(2, 4, 4, 4, generator=generator, requires_grad=True)
    teacher = torch.randn(2, 6, 2, 2, generator=generator)
    term = build_term(name)
    default = "decoder" if name == "intra_class_variation" else "encoder"
    assert (term.on_features, term.student, term.teacher, term.label) == (True, default, default, name)
    adapter = term.build_adapter(4, 6)
    term(student, teacher, target, inside, num_classes=3, adapter=adapter).backward()
    assert student.grad.any()
    assert adapter is None or all(parameter.grad is not None for parameter in adapter.parameters())


def test_adapters_stand_where_channels_must_agree():
    kinds = {
        name: tuple(type(build_term(name).build_adapter(4, channels)) for channels in (4, 6)) for name in ON_FEATURES
    }
    always, never = (ChannelAdapter, ChannelAdapter), (type(None), type(None))
    assert kinds == {
        "hint": always,
        "cosine_hint": always,
        "attention_transfer": never,
        "pearson_hint": (type(None), ChannelAdapter),
        "channel_correlation": (type(None), ChannelAdapter),
        "pairwise_similarity": never,
        "intra_class_variation": never,
        "cross_image_relation": never,
        "masked_generation": (MaskedGeneration, MaskedGeneration),
    }
    masked = build_term("masked_generation", {"mask_ratio": 0.25, "reduction": "sum"}).build_adapter(4, 6)
    assert (masked.mask_ratio, masked.reduction) == (0.25, "sum")


def test_channel_kl_takes_logits_or_features(batch):
    student, teacher, target, inside = batch
    plain, tapped = build_term("channel_kl"), build_term("channel_kl", student="stage:2")
    assert (plain.on_features, plain.label) == (False, "channel_kl")
    assert (tapped.student, tapped.teacher, tapped.label) == ("stage:2", "stage:2", "channel_kl@stage:2")
    # Features hide what lies outside the scene; an unknown class is nothing to them.
    by_hand = losses.channel_kl(student[:, :, :6], teacher[:, :, :6])
    assert tapped(student, teacher, target, inside, known=(0, 1)).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_intra_class_variation_sees_labeled_pixels_only(batch):
    student, teacher, target, inside = batch
    student.requires_grad_()
    build_term("intra_class_variation")(student, teacher, target, inside, num_classes=3).backward()
    assert not student.grad[0].any()
    assert student.grad[1].any()


def test_one_tap_stands_for_both():
    term = build_term("hint", student="a.b")
    assert (term.student, term.teacher, term.label) == ("a.b", "a.b", "hint@a.b")
    term = build_term("hint", teacher="c")
    assert (term.student, term.teacher) == ("c", "c")
    term = build_term("hint", student="encoder", teacher="c")
    assert (term.student, term.teacher, term.label) == ("encoder", "c", "hint")


def test_every_term_has_a_name_of_its_own():
    choices = [
        TermChoice(name="cross_entropy"),
        TermChoice(name="hint"),
        TermChoice(name="hint", student="stage:3"),
        TermChoice(name="hint", student="stage:3", teacher="stage:4"),
        TermChoice(name="pixel_kl", weight=2.0),
        TermChoice(name="pixel_kl", weight=3.0, options={"temperature": 4.0}),
        TermChoice(name="channel_kl", student="encoder"),
    ]
    named = label_terms(build_terms(choices))
    assert list(named) == [
        "cross_entropy",
        "hint",
        "hint@stage:3",
        "hint@stage:3#2",
        "pixel_kl",
        "pixel_kl#2",
        "channel_kl@encoder",
    ]
    assert named["pixel_kl#2"].weight == 3.0
    assert named["hint@stage:3#2"].term.teacher == "stage:4"


def test_every_option_has_a_rule_and_its_default_keeps_it():
    for name, loss in REGISTRY.items():
        assert set(loss.options) <= set(RULES), name
        parameters = inspect.signature(loss.function).parameters
        for option in loss.options:
            assert RULES[option][0](parameters[option].default), f"{name}.{option}"
        assert name == "masked_generation" or getattr(losses, name) is loss.function


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
        ("pixel_kl", {"weights": 1}, "no option 'weights'"),
        ("intra_class_variation", {"num_classes": 3}, "no option 'num_classes'"),
        ("chanel_kl", {}, "did you mean 'channel_kl'"),
        ("hint", {"temperature": 1}, "no option 'temperature'"),
        ("masked_generation", {"mask_ratio": 1}, "below 1, found 1"),
        ("masked_generation", {"mask_rate": 1}, "did you mean 'mask_ratio'"),
        ("masked_generation", {"student_channels": 1}, "no option 'student_channels'"),
        ("attention_transfer", {"mode": "printed"}, "'code' or 'paper', found 'printed'"),
        ("cross_image_relation", {"pool": 1.5}, "whole number"),
        ("cross_image_relation", {"pool": True}, "whole number"),
        ("pairwise_similarity", {"scale": 0}, "above 0 and at most 1"),
        ("decoupled_kl", {"beta": -1}, "at least 0"),
        ("soft_jaccard", {"alpha": "much"}, "found 'much'"),
        ("soft_jaccard", {"classes": "some"}, "'all' or 'present', found 'some'"),
    ],
)
def test_refuses_with_a_sentence_that_helps(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_term(name, options)


@pytest.mark.parametrize("known", [None, (0, 2)], ids=["all classes", "two classes"])
@pytest.mark.parametrize("name", ON_LOGITS)
def test_nothing_is_learned_where_the_teacher_says_nothing(name, known):
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    teacher = torch.randn(2, 3, 8, 8, generator=generator)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator).to(torch.uint8)
    silent = torch.zeros(2, 8, 8, dtype=torch.bool)
    silent[0, 2:5], silent[1, :, 6:] = True, True
    term = build_term(name)
    expected = term(student, teacher, target.masked_fill(silent, 255), ~silent, known=known)
    value = term(student, teacher.masked_fill(silent[:, None], 1.5), target, known=known)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    assert (student.grad.abs().amax(1)[silent] == 0).all()
    assert (student.grad.abs().amax(1)[~silent] > 0).any()


@pytest.mark.parametrize("name", ["pixel_kl", "cross_entropy"])
def test_refuses_taps_of_a_loss_on_logits(name):
    with pytest.raises(ConfigError, match=f"'{name}' compares logits.*hint"):
        build_term(name, student="encoder")


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


def test_masked_generation_without_its_module_is_an_error(batch):
    student, teacher, target, inside = batch
    with pytest.raises(TrainingError, match="build_adapter"):
        build_term("masked_generation")(student, teacher, target, inside)
