"""DIST against its formula and what a correlation promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.losses import dist


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def softmax_rows(logits, temperature):
    powers = np.exp(logits / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def pearson(own, other):
    own, other = own - own.mean(), other - other.mean()
    return (own * other).sum() / (np.sqrt((own**2).sum()) * np.sqrt((other**2).sum()) + 1e-8)


def slow_dist(student, teacher, labels, beta, gamma, temperature):
    valid = labels != 255
    p = softmax_rows(np.moveaxis(student, 1, -1)[valid], temperature)
    q = softmax_rows(np.moveaxis(teacher, 1, -1)[valid], temperature)
    within = np.mean([pearson(*rows) for rows in zip(p, q, strict=True)])
    across = np.mean([pearson(*columns) for columns in zip(p.T, q.T, strict=True)])
    return temperature**2 * (beta * (1 - within) + gamma * (1 - across))


@pytest.mark.parametrize(("beta", "gamma"), [(1, 1), (2, 0.5), (0, 1), (1, 0)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", [(1, 3, 3, 4), (3, 7, 5, 2), (2, 2, 4, 4)])
def test_is_its_formula(shape, temperature, beta, gamma):
    student, teacher = random_logits(*shape, seed=1).requires_grad_(), random_logits(*shape, seed=2)
    teacher[:, 1] -= 20  # absent from the teacher's answer: lengths near the floor
    labels = torch.randint(0, 2, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(3)) * 255
    options = {"temperature": temperature, "beta": beta, "gamma": gamma}
    expected = slow_dist(student.detach().numpy(), teacher.numpy(), labels.numpy(), **options)
    assert dist(student, teacher, labels, **options).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda s: dist(s, teacher, labels, **options), (student,), atol=1e-4)


def test_needs_no_labels():
    student, teacher = random_logits(2, 4, 3, 5, seed=1), random_logits(2, 4, 3, 5, seed=2)
    expected = slow_dist(student.numpy(), teacher.numpy(), np.zeros((2, 3, 5)), 1, 1, 1)
    assert dist(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_one_pixel_has_no_relation_across_pixels():
    student, teacher = random_logits(1, 4, 1, 1, seed=1), random_logits(1, 4, 1, 1, seed=2)
    assert dist(student, teacher, beta=0, gamma=1).item() == pytest.approx(1)
    assert dist(student, teacher, beta=1, gamma=0).item() < 1.9


def test_equal_logits_of_all_classes_give_finite_gradients():
    student = torch.zeros(1, 4, 3, 3, requires_grad=True)
    dist(student, random_logits(1, 4, 3, 3).float()).backward()
    assert student.grad.isfinite().all()


def test_rare_classes_keep_their_precision_in_float32():
    student, teacher = random_logits(2, 5, 40, 40, seed=1), random_logits(2, 5, 40, 40, seed=2)
    student[:, 0], teacher[:, 0] = student[:, 0] - 12, teacher[:, 0] - 12
    student.requires_grad_()
    exact = dist(student, teacher, beta=0)
    exact.backward()
    single = student.detach().float().requires_grad_()
    rounded = dist(single, teacher.float(), beta=0)
    rounded.backward()
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (single.grad - student.grad).abs().max() < 1e-4 * student.grad.abs().max()
