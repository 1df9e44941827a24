"""Channel KL against its formula, image by image and channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segshrink.losses import channel_kl


def random_maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def slow_channel_kl(student, teacher, labels, temperature):
    parts = []
    for image in range(student.shape[0]):
        for channel in range(student.shape[1]):
            here = labels[image] != 255
            if not here.any():
                continue
            s, t = student[image, channel][here] / temperature, teacher[image, channel][here] / temperature
            p, q = np.exp(s) / np.exp(s).sum(), np.exp(t) / np.exp(t).sum()
            parts.append((q * np.log(q / p)).sum())
    return temperature**2 * np.mean(parts)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (3, 7, 5, 2), (2, 5, 1, 6)])
def test_is_its_formula(shape, temperature):
    student, teacher = random_maps(*shape, seed=1), random_maps(*shape, seed=2)
    labels = torch.randint(0, 2, (shape[0], *shape[2:]), generator=torch.Generator().manual_seed(3)) * 255
    expected = slow_channel_kl(student.numpy(), teacher.numpy(), labels.numpy(), temperature)
    assert channel_kl(student, teacher, labels, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_needs_no_labels():
    student, teacher = random_maps(2, 3, 4, 5, seed=1), random_maps(2, 3, 4, 5, seed=2)
    expected = slow_channel_kl(student.numpy(), teacher.numpy(), np.zeros((2, 4, 5)), 4.0)
    assert channel_kl(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_labels_of_the_image_mask_smaller_features():
    student, teacher = random_maps(2, 3, 4, 4, seed=1), random_maps(2, 3, 4, 4, seed=2)
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, :4] = 255
    assert channel_kl(student, teacher, labels).item() == pytest.approx(
        channel_kl(student[:, :, 2:], teacher[:, :, 2:]).item(), rel=1e-12
    )


@pytest.mark.parametrize("size", [(4, 4), (2, 2)])
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_a_channel_that_the_teacher_excludes_is_left_out(size, temperature):
    student, teacher = random_maps(2, 3, 4, 4, seed=1).requires_grad_(), random_maps(2, 3, *size, seed=2)
    labels = torch.zeros(2, 4, 4)
    labels[0, 0] = 255
    kept = [0, 2]
    expected = channel_kl(student[:, kept], teacher[:, kept], labels, temperature=temperature)
    teacher[:, 1] = -torch.inf
    loss = channel_kl(student, teacher, labels, temperature=temperature)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert not student.grad[:, 1].any()


def test_does_not_see_a_shift_of_a_channel():
    student, teacher = random_maps(1, 3, 4, 4, seed=1), random_maps(1, 3, 4, 4, seed=2)
    shifts = torch.tensor([3.0, -50.0, 8.0]).reshape(1, 3, 1, 1)
    assert channel_kl(student + shifts, teacher).item() == pytest.approx(channel_kl(student, teacher).item(), rel=1e-9)
