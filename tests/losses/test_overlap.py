"""Soft Jaccard against its formula and what a metric promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.errors import ConfigError
from segshrink.losses import soft_jaccard


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def slow_soft_jaccard(student, teacher, labels, temperature, alpha, beta, classes="all", smooth=1e-3):
    p, q = softmax(student), softmax(teacher / temperature)
    losses = []
    present = set(teacher.argmax(axis=1)[labels != 255])
    for channel in range(student.shape[1]):
        if classes == "present" and channel not in present:
            continue
        own, other = p[:, channel][labels != 255], q[:, channel][labels != 255]
        hits = (own.sum() + other.sum() - np.abs(own - other).sum()) / 2
        extra, missed = own.sum() - hits, other.sum() - hits
        losses.append(1 - (hits + smooth) / (hits + alpha * extra + beta * missed + smooth))
    return np.mean(losses)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (0.5, 0.5), (0.3, 0.7), (2, 0), (0, 1)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", ["all", "present"])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (3, 7, 5, 2)])
def test_is_its_formula(shape, temperature, alpha, beta, classes):
    student, teacher = random_logits(*shape, seed=1).requires_grad_(), random_logits(*shape, seed=2)
    teacher[:, 1] -= 30  # absent from the teacher's answer
    labels = torch.randint(0, 2, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(3)) * 255
    options = {"temperature": temperature, "alpha": alpha, "beta": beta, "classes": classes}
    expected = slow_soft_jaccard(student.detach().numpy(), teacher.numpy(), labels.numpy(), **options)
    assert soft_jaccard(student, teacher, labels, **options).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda s: soft_jaccard(s, teacher, labels, **options), (student,))


@pytest.mark.parametrize("smooth", [0, 1e-3, 1.0, 30])
def test_smooth_is_added_to_both_sides(smooth):
    student, teacher = random_logits(2, 5, 4, 3, seed=1).requires_grad_(), random_logits(2, 5, 4, 3, seed=2)
    teacher[:, 1:3] -= 30
    labels = torch.zeros(2, 4, 3, dtype=torch.long)
    expected = slow_soft_jaccard(student.detach().numpy(), teacher.numpy(), labels.numpy(), 1, 1, 1, smooth=smooth)
    assert soft_jaccard(student, teacher, labels, smooth=smooth).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda s: soft_jaccard(s, teacher, labels, smooth=smooth), (student,))


def test_a_class_that_neither_sees_costs_nothing_without_smoothing():
    logits = torch.zeros(1, 3, 2, 2).index_fill(1, torch.tensor(2), -torch.inf).requires_grad_()
    loss = soft_jaccard(logits, logits.detach(), smooth=0)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_is_symmetric_and_zero_only_where_probabilities_agree():
    one, other = random_logits(2, 3, 4, 4, seed=1), random_logits(2, 3, 4, 4, seed=2)
    assert soft_jaccard(one, other).item() == pytest.approx(soft_jaccard(other, one).item(), rel=1e-12)
    assert soft_jaccard(one + 7, one).item() == pytest.approx(0, abs=1e-12)
    # The product form of the Jaccard loss is above 0 here, and smaller for a harder student.
    assert soft_jaccard(one * 2, one).item() > 0.05


def test_a_class_present_only_among_ignored_pixels_is_absent():
    student, teacher = random_logits(1, 4, 3, 3, seed=1).requires_grad_(), torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    teacher[:, 0], teacher[0, 2, 1, 1] = 2, 9
    labels = torch.zeros(1, 3, 3, dtype=torch.long)
    labels[0, 1, 1] = 255
    gradients = {
        classes: torch.autograd.grad(soft_jaccard(student, teacher, labels, classes=classes), student)[0]
        for classes in ("all", "present")
    }
    # Only class 0 counts: what the student gives it, it takes from all others alike, by their probability.
    p = student.detach().softmax(1)
    others = gradients["present"][:, 1:] / (p[:, :1] * p[:, 1:])
    torch.testing.assert_close(others, others[:, :1].expand_as(others), equal_nan=True)
    assert not torch.allclose(gradients["present"], gradients["all"])
    nothing = soft_jaccard(student, teacher, torch.full_like(labels, 255), classes="present")
    assert nothing.item() == 0


def test_half_each_is_dice():
    one, other = random_logits(2, 3, 4, 4, seed=1), random_logits(2, 3, 4, 4, seed=2)
    p, q = one.softmax(1), other.softmax(1)
    total = (p + q).sum((0, 2, 3))
    dice = 1 - (total - (p - q).abs().sum((0, 2, 3)) + 2e-3) / (total + 2e-3)
    assert soft_jaccard(one, other, alpha=0.5, beta=0.5).item() == pytest.approx(dice.mean().item(), rel=1e-9)


@pytest.mark.parametrize("options", [{"alpha": -0.1}, {"beta": float("nan")}])
def test_refuses_negative_weights(options):
    zeros = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ConfigError, match="alpha and beta of soft_jaccard must be at least 0"):
        soft_jaccard(zeros, zeros, **options)


def test_refuses_negative_smoothing():
    zeros = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ConfigError, match=r"smooth of soft_jaccard .*-1"):
        soft_jaccard(zeros, zeros, smooth=-1)


def test_refuses_other_classes():
    zeros = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ConfigError, match="classes of soft_jaccard must be 'all' or 'present', found 'some'"):
        soft_jaccard(zeros, zeros, classes="some")
