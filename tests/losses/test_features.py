"""Losses on features against the field's reference implementations, their formulas and their promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segshrink.errors import ConfigError
from segshrink.losses import ChannelAdapter, attention_transfer, cosine_hint, hint, pearson_hint


def random_features(*shape, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) + offset


def adapted_hint(student, teacher, arrays):
    adapter = ChannelAdapter(student.shape[1], teacher.shape[1]).to(student.dtype)
    adapter.load_state_dict({"weight": torch.tensor(arrays["param_conv_weight"])})
    return hint(adapter(student), teacher)


ORACLES = {
    "fitnet_cirkd": adapted_hint,
    "at_cirkd": lambda student, teacher, _: attention_transfer(student, teacher),
    "pkd_mmrazor": lambda student, teacher, _: pearson_hint(student, teacher),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("case", ORACLES)
def test_agrees_with_the_reference_implementation(oracles: Path, case, dtype, tolerance, memory_format):
    arrays = np.load(oracles / f"{case}.npz")
    for setting in json.loads((oracles / "manifest.json").read_text())[case]["settings"]:
        student = torch.tensor(arrays["in_s"], dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        teacher = torch.tensor(arrays["in_t"], dtype=dtype)
        loss = ORACLES[case](student, teacher, arrays)
        loss.backward()
        expected = arrays[setting["grad_key"]]
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(float(arrays[setting["loss_key"]]), rel=tolerance)
        assert np.abs(student.grad.numpy() - expected).max() <= tolerance * np.abs(expected).max()


def slow_attention(features):
    strength = (features**2).mean(axis=1).reshape(len(features), -1)
    return np.stack([image / np.sqrt((image**2).sum()) for image in strength])


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (3, 4, 6, 2)])
def test_losses_are_their_formulas(shape):
    student, teacher = random_features(*shape, seed=1), random_features(*shape, seed=2, offset=0.5)
    s, t = student.numpy(), teacher.numpy()
    difference = slow_attention(s) - slow_attention(t)
    columns = zip(np.moveaxis(s, 1, -1).reshape(-1, shape[1]), np.moveaxis(t, 1, -1).reshape(-1, shape[1]), strict=True)
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in columns]
    channels = zip(np.moveaxis(s, 1, 0), np.moveaxis(t, 1, 0), strict=True)
    pearson = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in channels]
    values = s.size / shape[1]
    assert hint(student, teacher).item() == pytest.approx(((s - t) ** 2).sum() / s.size, rel=1e-12)
    assert cosine_hint(student, teacher).item() == pytest.approx(1 - np.mean(cosines), rel=1e-12)
    assert attention_transfer(student, teacher).item() == pytest.approx((difference**2).mean(), rel=1e-12)
    assert attention_transfer(student, teacher, mode="paper").item() == pytest.approx(
        sum(np.sqrt((image**2).sum()) for image in difference), rel=1e-12
    )
    assert pearson_hint(student, teacher).item() == pytest.approx(
        (1 - np.mean(pearson)) * (values - 1) / values, rel=1e-5
    )


@pytest.mark.parametrize("loss", [hint, cosine_hint, attention_transfer, pearson_hint])
def test_gradient_is_the_derivative(loss):
    student, teacher = random_features(2, 3, 3, 4, seed=1).requires_grad_(), random_features(2, 3, 2, 2, seed=2)
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher), (student,))


def test_gradient_of_the_papers_attention_is_the_derivative():
    student, teacher = random_features(2, 3, 3, 4, seed=1).requires_grad_(), random_features(2, 5, 3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: attention_transfer(s, teacher, mode="paper"), (student,))
    same = teacher.clone().requires_grad_()
    attention_transfer(same, teacher, mode="paper").backward()
    assert torch.equal(same.grad, torch.zeros_like(same))


@pytest.mark.parametrize("loss", [cosine_hint, attention_transfer, pearson_hint])
def test_is_blind_to_scale(loss):
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 3, 4, 4, seed=2)
    expected = loss(student, teacher).item()
    assert expected > 0
    assert loss(student * 7, teacher * 0.3).item() == pytest.approx(expected, rel=1e-4)
    assert loss(student, student * 1e6).item() == pytest.approx(0, abs=1e-9)


def test_pearson_is_blind_to_the_offset_of_a_channel():
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 3, 4, 4, seed=2)
    offset = torch.tensor([5.0, -3.0, 100.0]).view(1, 3, 1, 1)
    assert pearson_hint(student + offset, teacher).item() == pytest.approx(
        pearson_hint(student, teacher).item(), rel=1e-9
    )


def test_attention_is_blind_to_the_number_of_channels():
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 5, 4, 4, seed=2)
    doubled = attention_transfer(student, teacher.repeat(1, 2, 1, 1))
    assert doubled.item() == pytest.approx(attention_transfer(student, teacher).item(), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_a_constant_channel_gets_no_gradient_from_pearson_and_leaves_the_others_theirs(value):
    student = random_features(2, 3, 4, 4, seed=1).float()
    teacher = random_features(2, 3, 4, 4, seed=2).float()
    student[:, 1] = value
    student.requires_grad_()
    loss = pearson_hint(student, teacher)
    loss.backward()
    others = pearson_hint(student[:, [0, 2]], teacher[:, [0, 2]]).item()
    assert loss.item() == pytest.approx((2 * others + 0.5 * 31 / 32) / 3, rel=1e-5)
    assert not student.grad[:, 1].any()
    assert student.grad[:, [0, 2]].all()


def test_pearson_of_a_single_value_is_zero():
    student = torch.ones(1, 3, 1, 1, requires_grad=True)
    loss = pearson_hint(student, torch.zeros(1, 3, 1, 1))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


def test_positions_without_direction_do_not_count_for_the_cosine():
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 3, 4, 4, seed=2)
    student[0], teacher[1, :, 2:] = 0, 0
    student.requires_grad_()
    loss = cosine_hint(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(cosine_hint(student[1:, :, :2], teacher[1:, :, :2]).item(), rel=1e-12)
    assert not student.grad[0].any()
    assert student.grad[1, :, :2].all()


def test_refuses_an_unknown_mode():
    with pytest.raises(ConfigError, match="'code' or 'paper', found 'text'"):
        attention_transfer(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), mode="text")
