"""Decoupled and normalized distillation against their formulas, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.errors import ModelError
from segshrink.losses import decoupled_kl, normalized_kl, pixel_kl


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def valid_rows(student, teacher, labels):
    valid = labels != 255
    yield from zip(np.moveaxis(student, 1, -1)[valid], np.moveaxis(teacher, 1, -1)[valid], labels[valid], strict=True)


def kl(q, p):
    return (q * np.log(q / p)).sum()


def slow_decoupled(student, teacher, labels, temperature, alpha, beta):
    losses = []
    for s, t, true in valid_rows(student, teacher, labels):
        p, q = softmax(s / temperature)[true], softmax(t / temperature)[true]
        target = kl(np.array([q, 1 - q]), np.array([p, 1 - p]))
        rest = kl(softmax(np.delete(t, true) / temperature), softmax(np.delete(s, true) / temperature))
        losses.append(alpha * target + beta * rest)
    return temperature**2 * np.mean(losses)


def slow_normalized(student, teacher, labels, temperature, gamma):
    losses = []
    for s, t, true in valid_rows(student, teacher, labels):
        target = -softmax(t)[true] * np.log(softmax(s)[true])
        own, other = softmax(np.delete(s, true) / temperature), softmax(np.delete(t, true) / temperature)
        losses.append(target - gamma * temperature**2 * (other * np.log(own)).sum())
    return np.mean(losses)


@pytest.fixture(params=[(1, 2, 3, 4), (3, 7, 5, 2), (2, 3, 1, 5)], ids=str)
def batch(request):
    shape = request.param
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(3))
    labels[0, 0, ::2] = 255
    return random_logits(*shape, seed=1), random_logits(*shape, seed=2), labels


@pytest.mark.parametrize("options", [(4.0, 1, 8), (1.0, 1, 1), (0.5, 2, 0), (2.0, 0, 3)])
def test_decoupled_is_its_formula(batch, options):
    student, teacher, labels = batch
    options = dict(zip(("temperature", "alpha", "beta"), options, strict=True))
    expected = slow_decoupled(*(value.numpy() for value in batch), **options)
    assert decoupled_kl(*batch, **options).item() == pytest.approx(expected, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: decoupled_kl(s, teacher, labels, **options), (student,))


@pytest.mark.parametrize("options", [(1.0, 1.5), (4.0, 1.5), (0.5, 0), (2.0, 3)])
def test_normalized_is_its_formula(batch, options):
    student, teacher, labels = batch
    options = dict(zip(("temperature", "gamma"), options, strict=True))
    expected = slow_normalized(*(value.numpy() for value in batch), **options)
    assert normalized_kl(*batch, **options).item() == pytest.approx(expected, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: normalized_kl(s, teacher, labels, **options), (student,))


def test_with_two_classes_only_the_true_class_counts():
    student, teacher = random_logits(2, 2, 4, 4, seed=1), random_logits(2, 2, 4, 4, seed=2)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    expected = pixel_kl(student, teacher, temperature=3.0)
    assert decoupled_kl(student, teacher, labels, temperature=3.0, beta=100).item() == pytest.approx(expected.item())


def test_a_sure_teacher_still_teaches_the_other_classes():
    student, teacher = random_logits(1, 4, 3, 3, seed=1).float(), random_logits(1, 4, 3, 3, seed=2).float()
    labels = torch.full((1, 3, 3), 2)
    teacher[:, 2] = 200  # 1 - p underflows in float32
    others = pixel_kl(student[:, [0, 1, 3]], teacher[:, [0, 1, 3]], temperature=4.0)
    assert decoupled_kl(student, teacher, labels, alpha=0).item() == pytest.approx(8 * others.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [decoupled_kl, normalized_kl])
def test_a_teacher_without_other_classes_teaches_only_the_true_one(loss):
    student = random_logits(1, 3, 2, 2, seed=1).float().requires_grad_()
    teacher = torch.full((1, 3, 2, 2), -torch.inf)
    teacher[:, 1] = 0
    value = loss(student, teacher, torch.ones(1, 2, 2, dtype=torch.long))
    value.backward()
    scale = 16 if loss is decoupled_kl else 1
    logits = student.detach() / (4 if loss is decoupled_kl else 1)
    assert value.item() == pytest.approx(scale * -logits.log_softmax(1)[:, 1].mean().item(), rel=1e-5)
    assert (student.grad[:, 1] < 0).all()


@pytest.mark.parametrize("loss", [decoupled_kl, normalized_kl])
def test_refuses_one_channel(loss):
    zeros = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ModelError, match=r"at least two classes.*use binary_kl"):
        loss(zeros, zeros, torch.zeros(1, 2, 2, dtype=torch.long))
