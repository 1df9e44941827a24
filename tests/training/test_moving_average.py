"""The moving average of weights: how much of it each step is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segshrink.training.moving_average import moving_average


@pytest.mark.parametrize(("decay", "steps"), [(0.99, 60), (0.9, 200)])
def test_early_weights_are_forgotten(decay: float, steps: int) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, multi_avg_fn=moving_average(decay), use_buffers=True)
    expected = 0.0
    for step in range(steps):
        network.weight.data.fill_(float(step))
        average.update_parameters(network)
        kept = min(decay, (1 + step) / (10 + step)) if step else 0.0
        expected = kept * expected + (1 - kept) * step
    assert average.module.state_dict()["weight"].item() == pytest.approx(expected)
    assert expected > 0.8 * steps  # a constant decay of 0.99 would stand at 15 of 60


def test_counters_are_averaged_too() -> None:
    network = nn.BatchNorm2d(1)
    average = AveragedModel(network, multi_avg_fn=moving_average(0.9), use_buffers=True)
    for step in (1, 3):
        network.num_batches_tracked = torch.tensor(step)
        network.running_mean = torch.full((1,), float(step))
        average.update_parameters(network)
    assert average.module.state_dict()["running_mean"].item() == pytest.approx(1 + 2 * 9 / 11)
