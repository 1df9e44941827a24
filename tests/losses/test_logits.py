"""Pixel KL against the field's reference implementations and its promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import pixel_kl

ORACLES = ["kd_cirkd", "kd_mdistiller_masked", "lskd_kd_masked", "stress_kd"]


def random_logits(*shape, seed=0, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", ORACLES)
def test_agrees_with_the_reference_implementation(oracles: Path, case, dtype, tolerance, memory_format):
    arrays = np.load(oracles / f"{case}.npz")
    for setting in json.loads((oracles / "manifest.json").read_text())[case]["settings"]:
        student = torch.tensor(arrays["in_s"], dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        teacher = torch.tensor(arrays["in_t"], dtype=dtype)
        labels = torch.tensor(arrays["in_labels"]) if "in_labels" in arrays else None
        hyper = setting["hyper"]
        loss = pixel_kl(student, teacher, labels, temperature=hyper["T"], standardize=hyper.get("stand", False))
        loss.backward()
        expected = arrays[setting["grad_key"]]
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(float(arrays[setting["loss_key"]]), rel=tolerance)
        assert np.abs(student.grad.numpy() - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("standardize", [False, True])
def test_gradient_is_the_derivative(standardize):
    student = random_logits(2, 4, 3, 5, seed=1).requires_grad_()
    teacher = random_logits(2, 4, 3, 5, seed=2)
    labels = torch.randint(0, 4, (2, 3, 5))
    labels[0, 1] = 255
    assert torch.autograd.gradcheck(
        lambda s: pixel_kl(s, teacher, labels, temperature=1.7, standardize=standardize), (student,)
    )


def test_counts_only_valid_pixels_and_divides_by_their_number():
    student, teacher = random_logits(2, 5, 6, 7, seed=1), random_logits(2, 5, 6, 7, seed=2)
    labels = torch.zeros(2, 6, 7, dtype=torch.uint8)
    labels[:, :, 4:] = 255
    whole = pixel_kl(student[..., :4], teacher[..., :4])
    masked = pixel_kl(student, teacher, labels)
    assert masked.item() == pytest.approx(whole.item(), rel=1e-12)


def test_what_is_ignored_may_be_anything():
    student, teacher = random_logits(1, 3, 4, 4, seed=1), random_logits(1, 3, 4, 4, seed=2)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0, 0] = 255
    expected = pixel_kl(student, teacher, labels)
    student[0, :, 0, 0] = torch.nan
    student.requires_grad_()
    loss = pixel_kl(student, teacher, labels)
    loss.backward()
    assert loss.item() == expected.item()
    assert torch.isfinite(student.grad).all()


def test_is_zero_with_a_gradient_of_zero_when_nothing_is_valid():
    student = random_logits(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    loss = pixel_kl(student, torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_teacher_gets_no_gradient():
    student, teacher = random_logits(1, 3, 4, 4).requires_grad_(), random_logits(1, 3, 4, 4, seed=1).requires_grad_()
    pixel_kl(student, teacher, standardize=True).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_a_class_the_teacher_excludes_costs_nothing_by_itself():
    student = random_logits(1, 3, 4, 4, seed=1, dtype=torch.float32).requires_grad_()
    teacher = random_logits(1, 3, 4, 4, seed=2, dtype=torch.float32)
    near = teacher.clone()
    near[:, 2] = -1e4
    teacher[:, 2] = -torch.inf
    loss = pixel_kl(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(pixel_kl(student, near).item(), rel=1e-6)
    assert torch.isfinite(student.grad).all()


def test_resizes_the_teacher_bilinearly():
    student, teacher = random_logits(2, 3, 8, 10), random_logits(2, 3, 4, 5, seed=1)
    resized = F.interpolate(teacher, size=(8, 10), mode="bilinear", align_corners=False)
    assert pixel_kl(student, teacher).item() == pixel_kl(student, resized).item()
    assert pixel_kl(student, teacher).item() != pytest.approx(
        pixel_kl(student, F.interpolate(teacher, size=(8, 10), mode="nearest")).item(), rel=1e-3
    )


def test_is_float32_inside_autocast():
    student = random_logits(2, 6, 8, 8, dtype=torch.float32)
    teacher = random_logits(2, 6, 8, 8, seed=1, dtype=torch.float32)
    half = student.to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pixel_kl(half, teacher, temperature=3.0)
    loss.backward()
    expected = pixel_kl(half.detach().float(), teacher, temperature=3.0)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    assert half.grad.dtype == torch.bfloat16


def test_can_be_backpropagated_twice_and_scaled():
    student, teacher = random_logits(1, 3, 4, 4).requires_grad_(), random_logits(1, 3, 4, 4, seed=1)
    loss = pixel_kl(student, teacher)
    loss.backward(retain_graph=True)
    once = student.grad.clone()
    (loss * 2).backward()
    torch.testing.assert_close(student.grad, once * 3)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 9),
    temperature=st.floats(0.2, 20),
    scale=st.sampled_from([0.1, 3.0, 40.0]),
)
def test_is_finite_and_blind_to_shifts_and_class_order(seed, classes, temperature, scale):
    student = random_logits(2, classes, 3, 4, seed=seed, dtype=torch.float32, scale=scale)
    teacher = random_logits(2, classes, 3, 4, seed=seed + 1, dtype=torch.float32, scale=scale)
    loss = pixel_kl(student, teacher, temperature=temperature)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    assert torch.isfinite(loss)
    assert loss.item() >= -1e-5
    assert pixel_kl(teacher, teacher, temperature=temperature).item() == pytest.approx(0, abs=1e-5)
    # Rounding grows with the logits and, through T², with the temperature.
    tolerance = 1e-5 * (1 + temperature) * scale
    permuted = pixel_kl(student[:, order], teacher[:, order], temperature=temperature)
    shifted = pixel_kl(student + 5, teacher - 3, temperature=temperature)
    assert permuted.item() == pytest.approx(loss.item(), rel=1e-3, abs=tolerance)
    assert shifted.item() == pytest.approx(loss.item(), rel=1e-3, abs=tolerance)


def test_standardized_loss_ignores_the_teachers_range():
    student, teacher = random_logits(1, 5, 4, 4), random_logits(1, 5, 4, 4, seed=1)
    plain = pixel_kl(student, teacher, standardize=True)
    assert pixel_kl(student, teacher * 7 + 2, standardize=True).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "labels", "found"),
    [
        (torch.zeros(1, 4, 4, 4), None, "classes"),
        (torch.zeros(2, 3, 4, 4), None, "teacher logits"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5), "labels of shape"),
    ],
)
def test_refuses_shapes_that_contradict(teacher, labels, found):
    with pytest.raises(ModelError, match=found):
        pixel_kl(torch.zeros(1, 3, 4, 4), teacher, labels)


def test_refuses_a_temperature_of_zero():
    with pytest.raises(ConfigError, match="above 0"):
        pixel_kl(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), temperature=0)


def test_weights_make_a_weighted_mean():
    student, teacher = random_logits(2, 3, 4, 5, seed=1).requires_grad_(), random_logits(2, 3, 4, 5, seed=2)
    weights = random_logits(2, 4, 5, seed=3).abs()
    labels = torch.zeros(2, 4, 5, dtype=torch.long)
    labels[:, 1:3] = 255
    p, q = (student.detach() / 2).softmax(1), (teacher / 2).softmax(1)
    divergence, kept = 4 * (q * (q / p).log()).sum(1), weights * (labels == 0)
    loss = pixel_kl(student, teacher, labels, weights=weights, temperature=2.0)
    assert loss.item() == pytest.approx(((divergence * kept).sum() / kept.sum()).item(), rel=1e-9)
    assert torch.autograd.gradcheck(
        lambda s: pixel_kl(s, teacher, labels, weights=weights, temperature=2.0), (student,)
    )


def test_equal_weights_change_nothing():
    student, teacher = random_logits(2, 3, 4, 5, seed=1), random_logits(2, 3, 4, 5, seed=2)
    weighted = pixel_kl(student, teacher, weights=torch.full((2, 4, 5), 0.2))
    assert weighted.item() == pytest.approx(pixel_kl(student, teacher).item(), rel=1e-12)


@pytest.mark.parametrize("ignored", [0, 255])
def test_is_zero_with_a_gradient_of_zero_when_nothing_weighs(ignored):
    student = random_logits(1, 3, 4, 4, dtype=torch.float32).requires_grad_()
    weights = torch.zeros(1, 4, 4) if ignored == 0 else torch.ones(1, 4, 4)
    loss = pixel_kl(student, torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), ignored), weights=weights, temperature=9)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_refuses_weights_of_another_size():
    zeros = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ModelError, match="pixel weights of shape"):
        pixel_kl(zeros, zeros, weights=torch.ones(1, 3, 4, 4))
