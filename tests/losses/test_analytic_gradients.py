"""What every distillation loss on logits promises, whatever its formula."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import (
    binary_kl,
    channel_kl,
    decoupled_kl,
    dist,
    normalized_kl,
    pixel_kl,
    soft_jaccard,
)

LOSSES = {
    "pixel_kl": pixel_kl,
    "channel_kl": channel_kl,
    "dist": dist,
    "soft_jaccard": soft_jaccard,
    "decoupled_kl": decoupled_kl,
    "normalized_kl": normalized_kl,
    "normalized_kl_soft": partial(normalized_kl, temperature=3.0),
    "binary_kl": binary_kl,
}
# Losses that are 0 where student and teacher agree.
DIVERGENCES = sorted(set(LOSSES) - {"normalized_kl", "normalized_kl_soft"})
# Case of the oracles -> loss, and its options from the case's.
ORACLES = {
    "cwd_mmrazor": (channel_kl, {"T": "temperature"}),
    "stress_cwd": (channel_kl, {"T": "temperature"}),
    "dist_seg": (dist, {"beta": "beta", "gamma": "gamma"}),
    "dist_masked": (dist, {"beta": "beta", "gamma": "gamma"}),
    "jml_kd_soft": (soft_jaccard, {"T": "temperature", "alpha": "alpha", "beta": "beta"}),
    "dkd_mdistiller_masked": (decoupled_kl, {"T": "temperature", "alpha": "alpha", "beta": "beta"}),
    "nkd_masked": (normalized_kl, {"T": "temperature", "gamma": "gamma"}),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def random_logits(*shape, seed=0, dtype=torch.float64, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def random_labels(*shape, classes, seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    return labels.masked_fill(torch.rand(shape, generator=generator) < ignored, 255)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", ORACLES)
def test_agrees_with_the_reference_implementation(oracles: Path, case, dtype, tolerance, memory_format):
    arrays = np.load(oracles / f"{case}.npz")
    loss, names = ORACLES[case]
    for setting in json.loads((oracles / "manifest.json").read_text())[case]["settings"]:
        student = torch.tensor(arrays["in_s"], dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        teacher = torch.tensor(arrays["in_t"], dtype=dtype)
        labels = torch.tensor(arrays["in_labels"]) if "in_labels" in arrays else None
        options = {names[key]: value for key, value in setting["hyper"].items() if key in names}
        value = loss(student, teacher, labels, **options)
        value.backward()
        expected = arrays[setting["grad_key"]]
        assert value.dtype == dtype
        assert value.item() == pytest.approx(float(arrays[setting["loss_key"]]), rel=tolerance)
        assert np.abs(student.grad.numpy() - expected).max() <= tolerance * np.abs(expected).max()


@every_loss
def test_gradient_is_the_derivative(loss):
    student, teacher = random_logits(2, 4, 3, 5, seed=1).requires_grad_(), random_logits(2, 4, 3, 5, seed=2)
    labels = random_labels(2, 3, 5, classes=4)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, labels), (student,))


@every_loss
def test_is_zero_with_a_gradient_of_zero_when_nothing_is_valid(loss):
    student = random_logits(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    value = loss(student, torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@every_loss
def test_what_is_ignored_may_be_anything(loss):
    student, teacher = random_logits(2, 3, 4, 4, seed=1), random_logits(2, 3, 4, 4, seed=2)
    labels = random_labels(2, 4, 4, classes=3)
    expected = loss(student, teacher, labels)
    ignored = (labels == 255).unsqueeze(1)
    student = student.masked_fill(ignored, torch.nan).requires_grad_()
    value = loss(student, teacher.masked_fill(ignored, torch.inf), labels)
    value.backward()
    assert value.item() == expected.item()
    assert not student.grad[ignored.expand_as(student)].any()
    assert student.grad.isfinite().all()
    assert student.grad.any()


@every_loss
def test_ignored_columns_are_as_if_cut_off(loss):
    student, teacher = random_logits(2, 5, 6, 7, seed=1), random_logits(2, 5, 6, 7, seed=2)
    labels = random_labels(2, 6, 7, classes=5, ignored=0)
    expected = loss(student[..., :4], teacher[..., :4], labels[..., :4])
    labels[..., 4:] = 255
    assert loss(student, teacher, labels.to(torch.uint8)).item() == pytest.approx(expected.item(), rel=1e-12)


@every_loss
def test_a_wholly_ignored_image_changes_nothing(loss):
    student, teacher = random_logits(3, 4, 5, 5, seed=1), random_logits(3, 4, 5, 5, seed=2)
    labels = random_labels(3, 5, 5, classes=4)
    labels[2] = 255
    expected = loss(student[:2], teacher[:2], labels[:2])
    assert loss(student, teacher, labels).item() == pytest.approx(expected.item(), rel=1e-12)


@every_loss
def test_one_valid_pixel_is_enough(loss):
    student, teacher = random_logits(1, 4, 3, 3, seed=1).requires_grad_(), random_logits(1, 4, 3, 3, seed=2)
    labels = torch.full((1, 3, 3), 255)
    labels[0, 1, 2] = 3
    value = loss(student, teacher, labels)
    value.backward()
    cut = loss(student[:, :, 1:2, 2:3], teacher[:, :, 1:2, 2:3], torch.full((1, 1, 1), 3))
    assert value.item() == pytest.approx(cut.item(), rel=1e-12)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_is_least_where_student_and_teacher_agree(name):
    teacher = random_logits(2, 4, 5, 6, seed=1)
    labels = random_labels(2, 5, 6, classes=4)
    student = teacher.clone().requires_grad_()
    value = LOSSES[name](student, teacher, labels)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    # Soft Jaccard has a kink there, with 0 among its slopes only where alpha and beta balance.
    if name != "soft_jaccard":
        assert student.grad.abs().max().item() < 1e-8
    assert LOSSES[name](teacher + random_logits(2, 4, 5, 6, seed=3), teacher, labels).item() > 1e-3


@every_loss
def test_teacher_gets_no_gradient(loss):
    student, teacher = random_logits(1, 3, 4, 4).requires_grad_(), random_logits(1, 3, 4, 4, seed=1).requires_grad_()
    loss(student, teacher, random_labels(1, 4, 4, classes=3)).backward()
    assert teacher.grad is None
    assert student.grad is not None


@every_loss
def test_resizes_the_teacher_bilinearly(loss):
    student, teacher = random_logits(2, 3, 8, 10), random_logits(2, 3, 4, 5, seed=1)
    labels = random_labels(2, 8, 10, classes=3)
    resized = F.interpolate(teacher, size=(8, 10), mode="bilinear", align_corners=False)
    assert loss(student, teacher, labels).item() == loss(student, resized, labels).item()


@every_loss
def test_is_finite_at_large_logits(loss):
    student = random_logits(2, 6, 8, 8, seed=1, dtype=torch.float32, scale=80).requires_grad_()
    teacher = random_logits(2, 6, 8, 8, seed=2, dtype=torch.float32, scale=80)
    labels = random_labels(2, 8, 8, classes=6)
    value = loss(student, teacher, labels)
    value.backward()
    assert student.grad.isfinite().all()
    assert value.item() == pytest.approx(loss(student.double(), teacher.double(), labels).item(), rel=1e-4)


@every_loss
@pytest.mark.parametrize("size", [(6, 6), (3, 3)])
def test_a_class_the_teacher_excludes_gives_no_nan(loss, size):
    student = random_logits(2, 4, 6, 6, seed=1, dtype=torch.float32).requires_grad_()
    teacher = random_logits(2, 4, *size, seed=2, dtype=torch.float32)
    teacher[:, 2] = -torch.inf  # everywhere
    teacher[:, 0, : size[0] // 3] = -torch.inf  # here and there
    value = loss(student, teacher, random_labels(2, 6, 6, classes=4))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad[:, 1].any()


@every_loss
def test_is_float32_inside_autocast(loss):
    student = random_logits(2, 6, 8, 8, dtype=torch.float32).to(torch.bfloat16).requires_grad_()
    teacher = random_logits(2, 6, 8, 8, seed=1, dtype=torch.float32)
    labels = random_labels(2, 8, 8, classes=6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(student.detach().float(), teacher, labels).item()
    assert student.grad.dtype == torch.bfloat16


@every_loss
def test_can_be_backpropagated_twice_and_scaled(loss):
    student, teacher = random_logits(1, 3, 4, 4).requires_grad_(), random_logits(1, 3, 4, 4, seed=1)
    value = loss(student, teacher, random_labels(1, 4, 4, classes=3))
    value.backward(retain_graph=True)
    once = student.grad.clone()
    (value * 2).backward()
    torch.testing.assert_close(student.grad, once * 3)


@every_loss
def test_changes_neither_input(loss):
    student, teacher = random_logits(1, 3, 4, 4).requires_grad_(), random_logits(1, 3, 4, 4, seed=1)
    labels = random_labels(1, 4, 4, classes=3)
    before = [tensor.clone() for tensor in (student, teacher, labels)]
    loss(student, teacher, labels).backward()
    assert all(torch.equal(*pair) for pair in zip(before, (student, teacher, labels), strict=True))


@every_loss
@pytest.mark.parametrize(
    ("teacher", "labels", "found"),
    [
        (torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4), "classes"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4), "teacher logits"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 4), "labels of shape"),
    ],
)
def test_refuses_shapes_that_contradict(loss, teacher, labels, found):
    with pytest.raises(ModelError, match=found):
        loss(torch.zeros(1, 3, 4, 4), teacher, labels)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"normalized_kl_soft"}))
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(name, temperature):
    zeros = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ConfigError, match=f"temperature of {name} must be above 0"):
        LOSSES[name](zeros, zeros, torch.zeros(1, 4, 4), temperature=temperature)
