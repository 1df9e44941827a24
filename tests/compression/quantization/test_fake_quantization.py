from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from segshrink.compression.quantization.fake_quantization import (
    FakeQuantizedWeight,
    fake_quantized,
    observing,
    rounded,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Conv2d(4, 2, 1),
    )


@pytest.mark.parametrize(("axis", "shape"), [(0, (5, 3, 3, 3)), (1, (3, 5, 2, 2))])
def test_weights_are_rounded_as_numpy_says(axis: int, shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    largest = np.abs(weight).max(axis=tuple(number for number in range(4) if number != axis), keepdims=True)
    scale = largest / 64
    expected = np.clip(np.rint(weight / scale), -64, 64) * scale
    found = FakeQuantizedWeight(axis)(torch.from_numpy(weight)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert len(np.unique(np.rint(found / scale))) > 20
    assert np.abs(found - weight).max() <= (scale / 2).max() * 1.001


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.randn(4, 2, 1, 1)
    weight[1] = 0
    found = FakeQuantizedWeight(0)(weight)
    assert torch.isfinite(found).all()
    assert (found[1] == 0).all()


def test_gradients_pass_straight_through_weights() -> None:
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    factor = torch.randn(4, 3, 3, 3)
    (FakeQuantizedWeight(0)(weight) * factor).sum().backward()
    torch.testing.assert_close(weight.grad, factor)


def test_inputs_are_rounded_as_numpy_says_and_clipped_without_gradient() -> None:
    values = torch.linspace(-2, 4, 601, requires_grad=True)
    found = rounded(values, torch.tensor([-1.0, 3.0]))
    scale = 4 / 255
    zero = round(1 / scale)
    steps = np.clip(np.rint(values.detach().numpy() / scale) + zero, 0, 255)
    np.testing.assert_allclose(found.detach().numpy(), (steps - zero) * scale, atol=1e-6)
    assert (found == 0).any(), "0 is one of the steps, for padding"
    found.sum().backward()
    assert values.grad is not None
    assert bool((values.grad[(values < -1.02) | (values > 3.02)] == 0).all())
    assert bool((values.grad[(values > -0.98) & (values < 2.98)] == 1).all())


def test_rounding_commutes_with_batch_normalization() -> None:
    weight = torch.randn(6, 3, 3, 3)
    scales = torch.tensor([0.1, -2.0, 3.0, 1.0, 0.5, -0.01]).reshape(-1, 1, 1, 1)
    fake = FakeQuantizedWeight(0)
    torch.testing.assert_close(fake(weight * scales), fake(weight) * scales)


def test_plain_modules_come_back() -> None:
    plain = network()
    before = copy.deepcopy(plain)
    images = torch.rand(2, 3, 8, 8)
    with fake_quantized(plain) as inputs:
        assert set(inputs) == {"0", "3", "4"}
        output = plain.train()(images)
        assert all(parametrize.is_parametrized(plain[number]) for number in (0, 3, 4))
    assert not torch.equal(output, before.train()(images))
    plain.load_state_dict(before.state_dict())
    assert [type(module) for module in plain] == [type(module) for module in before]
    assert plain.state_dict().keys() == before.state_dict().keys()
    torch.testing.assert_close(plain.eval()(images), before.eval()(images), rtol=0, atol=0)


def test_plain_modules_come_back_after_an_error() -> None:
    plain = network()
    with pytest.raises(RuntimeError, match="stop"), fake_quantized(plain):
        raise RuntimeError("stop")
    assert not any(parametrize.is_parametrized(module) for module in plain.modules())
    assert not any(module._forward_pre_hooks for module in plain.modules())


def test_ranges_follow_what_is_seen_in_training_only() -> None:
    plain = network()
    with fake_quantized(plain) as inputs:
        first = inputs["0"]
        with observing(inputs), torch.no_grad():
            plain.eval()(torch.full((1, 3, 4, 4), 2.0))
        assert first.range.tolist() == [0, 2]  # type: ignore[union-attr]
        plain.eval()(torch.full((1, 3, 4, 4), 50.0))
        assert first.range.tolist() == [0, 2]  # type: ignore[union-attr]
        plain.train()(torch.rand(2, 3, 4, 4) * 4)
        assert 2 < float(first.range[1]) < 4  # type: ignore[index]


def test_training_lowers_the_loss_of_the_rounded_network() -> None:
    plain = network()
    images, target = torch.rand(4, 3, 8, 8), torch.randint(0, 2, (4, 16, 16))
    with fake_quantized(plain):
        optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
        losses = []
        for _ in range(20):
            loss = nn.functional.cross_entropy(plain(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
