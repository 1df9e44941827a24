"""Losses of sigmoid logits against their formulas and their two-class twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ModelError
from segshrink.losses import binary_cross_entropy, binary_kl, cross_entropy, pixel_kl


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def random_marks(*shape, seed=0):
    """Labels of 0, 1 and 255."""
    drawn = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.masked_fill(drawn == 2, 255).to(torch.uint8)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def slow_binary_kl(student, teacher, valid, temperature):
    p, q = sigmoid(student / temperature)[valid], sigmoid(teacher / temperature)[valid]
    return temperature**2 * np.mean(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))


def two_class(logits):
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 5, 4, 2)])
def test_kl_is_its_formula(shape, temperature):
    student, teacher = random_logits(*shape, seed=1), random_logits(*shape, seed=2)
    pixels, each = random_marks(shape[0], *shape[2:], seed=3), random_marks(*shape, seed=4)
    for labels, valid in [
        (None, np.ones(shape, bool)),
        (pixels, np.broadcast_to((pixels != 255).unsqueeze(1).numpy(), shape)),
        (each, (each != 255).numpy()),
    ]:
        expected = slow_binary_kl(student.numpy(), teacher.numpy(), valid, temperature)
        found = binary_kl(student, teacher, labels, temperature=temperature)
        assert found.item() == pytest.approx(expected, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: binary_kl(s, teacher, each, temperature=temperature), (student,))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_channel_kl_is_the_pixel_kl_of_two_classes(temperature):
    student, teacher = random_logits(2, 1, 4, 5, seed=1).requires_grad_(), random_logits(2, 1, 4, 5, seed=2)
    labels = random_marks(2, 4, 5)
    one = binary_kl(student, teacher, labels, temperature=temperature)
    two = pixel_kl(two_class(student), two_class(teacher), labels, temperature=temperature)
    assert one.item() == pytest.approx(two.item(), rel=1e-9)
    (gradient,), (expected,) = torch.autograd.grad(one, student), torch.autograd.grad(two, student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_one_channel_cross_entropy_is_the_cross_entropy_of_two_classes():
    student, labels = random_logits(2, 1, 4, 5, seed=1).requires_grad_(), random_marks(2, 4, 5)
    one, two = binary_cross_entropy(student, labels), cross_entropy(two_class(student), labels)
    assert one.item() == pytest.approx(two.item(), rel=1e-9)
    (gradient,), (expected,) = torch.autograd.grad(one, student), torch.autograd.grad(two, student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


def test_cross_entropy_counts_valid_entries_only():
    student, labels = random_logits(2, 3, 4, 5, seed=1).requires_grad_(), random_marks(2, 3, 4, 5)
    valid = labels != 255
    expected = F.binary_cross_entropy_with_logits(student[valid], labels[valid].double())
    assert binary_cross_entropy(student, labels).item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: binary_cross_entropy(s, labels), (student,))


def test_cross_entropy_is_zero_with_a_gradient_of_zero_when_nothing_is_valid():
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = binary_cross_entropy(student, torch.full((1, 2, 3, 3), 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_cross_entropy_is_finite_at_large_logits_and_single_precision_in_autocast():
    student = (random_logits(1, 2, 3, 3).to(torch.bfloat16) * 40).requires_grad_()
    labels = random_marks(1, 2, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = binary_cross_entropy(student, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(binary_cross_entropy(student.double(), labels).item(), rel=1e-5)
    assert student.grad.isfinite().all()


def test_agreement_far_out_costs_nothing_in_single_precision():
    logits = torch.tensor([-400.0, -90.0, 90.0, 400.0]).reshape(1, 1, 2, 2)
    assert binary_kl(logits * 0.9, logits).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("certain", [torch.inf, -torch.inf])
def test_a_certain_teacher_is_a_label(certain):
    student = random_logits(1, 2, 3, 3).requires_grad_()
    loss = binary_kl(student, torch.full((1, 2, 3, 3), certain))
    expected = binary_cross_entropy(student, torch.full((1, 2, 3, 3), int(certain > 0)))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 4), r"give one label"), ((1, 3, 4, 4), "give one label"), ((2, 2, 4, 4), "give one label")],
)
def test_cross_entropy_refuses_labels_of_another_shape(shape, message):
    with pytest.raises(ModelError, match=message):
        binary_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(shape))
