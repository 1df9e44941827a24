"""Masked generative distillation against its reference implementation and its promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import MaskedGeneration


def random_features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_module(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedGeneration(3, 5, **options).double()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_agrees_with_the_reference_implementation(oracles: Path, monkeypatch, dtype, tolerance):
    arrays = np.load(oracles / "mgd_official.npz")
    weights = {
        name.removeprefix("param_").replace("_", "."): torch.tensor(arrays[name])
        for name in arrays
        if name.startswith("param_")
    }
    for setting in json.loads((oracles / "manifest.json").read_text())["mgd_official"]["settings"]:
        hyper = setting["hyper"]
        module = MaskedGeneration(32, 64, mask_ratio=hyper["lam"], reduction="sum").to(dtype)
        module.load_state_dict(weights)
        student = torch.tensor(arrays["in_s"], dtype=dtype, requires_grad=True)
        teacher, uniform = torch.tensor(arrays["in_t"], dtype=dtype), torch.tensor(arrays["in_u"])
        loss = hyper["alpha"] * module(student, teacher, uniform=uniform)
        loss.backward()
        expected = arrays[setting["grad_key"]]
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(float(arrays[setting["loss_key"]]), rel=tolerance)
        assert np.abs(student.grad.numpy() - expected).max() <= tolerance * np.abs(expected).max()
        hidden = torch.tensor(arrays[setting["extra"][0]]) == 0
        assert not student.grad.masked_select(hidden).any()
        module.reduction = "mean"
        mean = hyper["alpha"] * module(student, teacher, uniform=uniform).item()
        assert mean == pytest.approx(loss.item() / teacher[0].numel(), rel=tolerance)


def test_is_its_formula_for_equal_channels_and_batch_of_one():
    module = MaskedGeneration(4, 4, mask_ratio=0.6).double()
    student, teacher = random_features(1, 4, 5, 6, seed=1), random_features(1, 4, 3, 3, seed=2)
    uniform = torch.rand(1, 1, 5, 6)
    visible = torch.where(uniform > 0.4, 0.0, 1.0) * student
    first, second = module.generation[0], module.generation[2]
    rebuilt = F.conv2d(F.conv2d(visible, first.weight, first.bias, padding=1).clamp(min=0), second.weight, padding=1)
    rebuilt = rebuilt + second.bias.view(1, -1, 1, 1)
    wanted = F.interpolate(teacher, size=(5, 6), mode="bilinear", align_corners=False)
    assert len(list(module.parameters())) == 4
    assert module(student, teacher, uniform=uniform).item() == pytest.approx(((rebuilt - wanted) ** 2).mean().item())


def test_gradient_is_the_derivative_for_student_and_weights():
    module = small_module(mask_ratio=0.5)
    student, teacher = random_features(2, 3, 3, 4, seed=1).requires_grad_(), random_features(2, 5, 3, 4, seed=2)
    uniform = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda s: module(s, teacher, uniform=uniform), (student,))
    module(student, teacher, uniform=uniform).backward()
    assert all(parameter.grad.any() for parameter in module.parameters())


def test_draws_the_mask_from_the_global_generator():
    module, student, teacher = small_module(), random_features(2, 3, 8, 8, seed=1), random_features(2, 5, 8, 8, seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        values = [module(student, teacher).item() for _ in range(2)]
        torch.manual_seed(3)
        uniform = torch.rand(2, 1, 8, 8)
        torch.manual_seed(3)
        again = module(student, teacher).item()
    assert values[0] != values[1]
    assert again == values[0] == module(student, teacher, uniform=uniform).item()


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.75])
def test_hides_the_share_of_pixels_in_all_channels(ratio):
    module = small_module(mask_ratio=ratio)
    student, teacher = random_features(4, 3, 32, 32, seed=1).requires_grad_(), random_features(4, 5, 32, 32, seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module(student, teacher).backward()
    hidden = student.grad == 0
    assert hidden.all(dim=1).sum() == hidden.any(dim=1).sum()
    assert hidden.double().mean().item() == pytest.approx(ratio, abs=0.02)


def test_half_precision_weights_compute_in_float32():
    module = small_module().to(torch.bfloat16)
    student, teacher = random_features(1, 3, 4, 4, seed=1).bfloat16(), random_features(1, 5, 4, 4, seed=2).bfloat16()
    uniform = torch.rand(1, 1, 4, 4)
    loss = module(student, teacher, uniform=uniform)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(module.double()(student, teacher, uniform=uniform).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 1.0}, "below 1, found 1.0"),
        ({"mask_ratio": -0.1}, "at least 0"),
        ({"reduction": "none"}, "'mean' or 'sum', found 'none'"),
    ],
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        MaskedGeneration(3, 5, **options)


def test_refuses_other_channels_and_masks():
    with pytest.raises(ModelError, match="at least 1 channel"):
        MaskedGeneration(0, 5)
    module = small_module()
    with pytest.raises(ModelError, match="built for 3 student and 5 teacher channels, found 4 and 5"):
        module(torch.zeros(1, 4, 2, 2), torch.zeros(1, 5, 2, 2))
    with pytest.raises(ModelError, match=r"shape \(1, 1, 2, 2\), found \(2, 2\)"):
        module(torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2), uniform=torch.zeros(2, 2))
