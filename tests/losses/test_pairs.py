"""What all losses on features promise alike: sizes, precision, zero features, large numbers, clear errors."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ModelError
from segshrink.losses import (
    ChannelAdapter,
    MaskedGeneration,
    attention_transfer,
    channel_correlation,
    cosine_hint,
    cross_image_relation,
    hint,
    intra_class_variation,
    pairwise_similarity,
    pearson_hint,
)


def variation(student, teacher):
    labels = torch.randint(0, 4, (len(student), 16, 16), generator=torch.Generator().manual_seed(0))
    return intra_class_variation(student, teacher, labels, num_classes=4)


def generation(student, teacher):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedGeneration(student.shape[1], teacher.shape[1], mask_ratio=0.5)(student, teacher)


EQUAL_CHANNELS = {
    "hint": hint,
    "cosine_hint": cosine_hint,
    "pearson_hint": pearson_hint,
    "channel_correlation": channel_correlation,
}
ANY_CHANNELS = {
    "attention_transfer": attention_transfer,
    "attention_transfer of the paper": partial(attention_transfer, mode="paper"),
    "pairwise_similarity": pairwise_similarity,
    "intra_class_variation": variation,
    "cross_image_relation": cross_image_relation,
    "MaskedGeneration": generation,
}
LOSSES = EQUAL_CHANNELS | ANY_CHANNELS

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def random_features(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@every_loss
def test_teaches_the_student_alone(loss):
    student, teacher = random_features(2, 3, 8, 8).requires_grad_(), random_features(2, 3, 8, 8, seed=1)
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.any()


@every_loss
def test_resizes_the_teacher_bilinearly(loss):
    student = random_features(2, 3, 8, 10)
    for size in ((4, 5), (16, 12)):
        teacher = random_features(2, 3, *size, seed=1)
        resized = F.interpolate(teacher, size=(8, 10), mode="bilinear", align_corners=False)
        assert loss(student, teacher).item() == loss(student, resized).item()


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_is_float32_inside_autocast(loss, half):
    student = random_features(2, 3, 8, 8).to(half).requires_grad_()
    teacher = random_features(2, 3, 4, 4, seed=1).to(half)
    with torch.autocast("cpu", dtype=half):
        value = loss(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(student.detach().float(), teacher.float()).item()
    assert student.grad.dtype == half


@every_loss
def test_float64_stays(loss):
    student, teacher = random_features(2, 3, 8, 8).double(), random_features(2, 3, 8, 8, seed=1).double()
    value = loss(student, teacher)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(loss(student.float(), teacher.float()).item(), rel=1e-4)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES.values() if loss is not generation])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_is_zero_without_gradient_between_features_that_say_nothing(loss, value):
    student = torch.full((2, 3, 8, 8), value, requires_grad=True)
    loss_value = loss(student, torch.full((2, 3, 4, 4), value))
    loss_value.backward()
    assert loss_value.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max().item() == pytest.approx(0, abs=1e-6)


@every_loss
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_gradient_does_not_explode_at_a_silent_student(loss, value):
    student = torch.full((2, 3, 8, 8), value, requires_grad=True)
    loss_value = loss(student, random_features(2, 3, 8, 8))
    loss_value.backward()
    assert torch.isfinite(loss_value)
    assert student.grad.abs().max() < 10


@every_loss
def test_gradient_does_not_explode_where_channels_and_pixels_are_silent(loss):
    student = random_features(2, 3, 8, 8).relu()
    student[:, 1] = 0
    student[0, :, :4, :4] = 0
    student.requires_grad_()
    loss(student, random_features(2, 3, 8, 8, seed=1).relu()).backward()
    assert student.grad.abs().max() < 10


@every_loss
@pytest.mark.parametrize("scale", [1e-3, 1e6, 1e15])
def test_is_finite_at_any_usual_magnitude(loss, scale):
    student = random_features(2, 3, 8, 8, scale=scale).requires_grad_()
    value = loss(student, random_features(2, 3, 8, 8, seed=1, scale=scale))
    value.backward()
    assert torch.isfinite(value)
    assert value > 0
    assert torch.isfinite(student.grad).all()
    assert student.grad.any()


@every_loss
def test_accepts_one_image_of_one_channel_and_pixel(loss):
    student = random_features(1, 1, 1, 1).requires_grad_()
    value = loss(student, random_features(1, 1, 1, 1, seed=1))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", ANY_CHANNELS.values(), ids=ANY_CHANNELS)
def test_channels_may_differ(loss):
    assert loss(random_features(2, 3, 8, 8), random_features(2, 7, 8, 8, seed=1)) > 0


@pytest.mark.parametrize("name", EQUAL_CHANNELS)
def test_channels_must_be_equal_and_an_adapter_makes_them_so(name):
    student, teacher = random_features(2, 3, 8, 8), random_features(2, 7, 8, 8, seed=1)
    with pytest.raises(ModelError, match=rf"{name} needs as many .* found 3 and 7; put ChannelAdapter\(3, 7\)"):
        LOSSES[name](student, teacher)
    assert LOSSES[name](ChannelAdapter(3, 7)(student), teacher) > 0


@every_loss
@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 3, 4, 4), (1, 3, 4, 4), "same images"),
        ((2, 3, 16), (2, 3, 4, 4), r"needs features \(N, C, H, W\)"),
        ((2, 3, 4, 4), (3, 4, 4), r"needs features \(N, C, H, W\)"),
        ((0, 3, 4, 4), (0, 3, 4, 4), "at least one image"),
    ],
)
def test_refuses_features_that_do_not_fit(loss, student, teacher, message):
    with pytest.raises(ModelError, match=message):
        loss(torch.zeros(student), torch.zeros(teacher))
