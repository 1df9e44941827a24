from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from segshrink.config import Training
from segshrink.errors import ConfigError
from segshrink.training.optimizers import build_optimizer, build_schedule, warmup_cosine
from segshrink.training.task import SegmentationTask


def optimizer(**settings: Any) -> torch.optim.Optimizer:
    weights = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    return build_optimizer(Training.model_validate({"learning_rate": 0.1, "weight_decay": 0.02, **settings}), weights)


def factors(total: int = 100, epochs: int = 10, **settings: Any) -> list[float]:
    factor = build_schedule(Training.model_validate(settings), total=total, epochs=epochs)
    return [factor(step) for step in range(total)]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, total=100, warmup=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0)


def test_without_warm_up_the_first_step_is_the_largest() -> None:
    assert warmup_cosine(0, total=10, warmup=0.0) == 1.0


@pytest.mark.parametrize(
    ("written", "kind", "expected"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        ({"name": "adamw", "options": {"eps": 1e-6}}, torch.optim.AdamW, {"eps": 1e-6}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("SGD", torch.optim.SGD, {"momentum": 0, "nesterov": False}),
        ({"name": "RMSprop", "options": {"alpha": 0.5}}, torch.optim.RMSprop, {"alpha": 0.5}),
        ("lamb", torch.optim.Optimizer, {"betas": (0.9, 0.999)}),
    ],
)
def test_optimizers_of_torch_and_timm_go_by_their_names(written: Any, kind: type, expected: dict[str, Any]) -> None:
    built = optimizer(optimizer=written)
    assert isinstance(built, kind)
    matrices, vectors = built.param_groups
    assert (matrices["lr"], matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.02, 0.0)
    assert {name: matrices[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("adamww", "^optimizer 'adamww' can't be used: timm has none of that name; did you mean 'adamw'"),
        ("AdamWW", "^optimizer 'AdamWW' can't be used: torch has none of that name; did you mean 'AdamW'"),
        ({"name": "SGD", "options": {"speed": 2}}, "^optimizer 'SGD' can't be used: .*speed"),
        ({"name": "sgd", "options": {"speed": 2}}, "^optimizer 'sgd' can't be used: .*speed"),
        ("LBFGS", "^optimizer 'LBFGS' can't be used: LBFGS doesn't support per-parameter options"),
        ({"name": "sgd", "options": {"weight_decay": 0.5}}, r"training\.weight_decay"),
        ({"name": "SGD", "options": {"weight_decay": 0.5}}, r"training\.weight_decay"),
    ],
)
def test_optimizers_that_can_not_be_are_refused_before_training(written: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SegmentationTask(nn.Conv2d(3, 2, 1), training=Training.model_validate({"optimizer": written}))


def test_schedules_are_torchs_and_timms_with_a_warm_up_before() -> None:
    power = [(1 - step / 100) ** 0.9 for step in range(100)]
    decay = {"name": "PolynomialLR", "options": {"power": 0.9}}
    assert factors(schedule=decay, warmup=0) == pytest.approx(power, abs=1e-9)
    warmed = [value * min(1, (step + 1) / 20) for step, value in enumerate(power)]
    assert factors(schedule=decay, warmup=0.2) == pytest.approx(warmed, abs=1e-9)
    assert factors(schedule={"name": "poly", "options": {"decay_rate": 0.9}}, warmup=0) == pytest.approx(
        power, abs=1e-9
    )
    # timm counts in epochs, of ten steps here.
    stepped = {"name": "step", "options": {"decay_epochs": 3, "decay_rate": 0.5}}
    assert factors(schedule=stepped, warmup=0) == pytest.approx([0.5 ** (step // 30) for step in range(100)])
    assert factors(schedule={"name": "ConstantLR", "options": {"factor": 1}}, warmup=0) == [1.0] * 100


def test_one_cycle_is_as_long_as_the_training() -> None:
    rates = factors(schedule={"name": "OneCycleLR", "options": {"pct_start": 0.5}}, warmup=0)
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == pytest.approx(1)
    assert math.isclose(rates.index(max(rates)), 49, abs_tol=1)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("cosin", "^schedule 'cosin' can't be used"),
        (
            "PolynomialLr",
            "^schedule 'PolynomialLr' can't .* none of that name; did you mean 'PolynomialLR'",
        ),
        ({"name": "poly", "options": {"speed": 2}}, "^schedule 'poly' can't be used: .*speed"),
        ("ReduceLROnPlateau", "^schedule 'ReduceLROnPlateau' can't be used"),
        ("plateau", "^schedule 'plateau' can't be used: "),
    ],
)
def test_schedules_that_can_not_be_are_refused_before_training(written: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SegmentationTask(nn.Conv2d(3, 2, 1), training=Training.model_validate({"schedule": written}))
