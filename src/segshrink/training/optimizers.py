"""Optimizers and schedules of the learning rate, by the names that torch and timm give them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from segshrink.config import NamedOptions, Training
from segshrink.errors import ConfigError, first_line, nearest

# What wrong options raise in torch and timm.
_REFUSALS = (TypeError, ValueError, AssertionError)
# Arguments of torch's schedules that are as long as the training.
_LENGTHS = ("total_steps", "total_iters", "T_max")


def build_optimizer(settings: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the optimizer that the settings name; norms and biases don't decay.

    Raises:
        ConfigError: Neither torch nor timm has it, or it refuses its options; or ``weight_decay`` is one of these.
    """
    if "weight_decay" in settings.optimizer.options:
        raise ConfigError("'weight_decay' is no option of the optimizer; write it as training.weight_decay")
    parameters = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    choice, rate = settings.optimizer, settings.learning_rate
    try:
        if choice.name == "adamw":
            return AdamW(groups, lr=rate, **choice.options)
        make: Callable[..., Optimizer]
        if choice.name[:1].isupper():
            make = _of_torch(choice, torch.optim, Optimizer)
        else:
            from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

            if choice.name not in (known := [str(name) for name in list_optimizers()]):
                raise ValueError(f"timm has none of that name{nearest(choice.name, known)}")
            make = partial(create_optimizer_v2, opt=choice.name)
        return make(groups, lr=rate, **choice.options)
    except _REFUSALS as error:
        raise _refused("optimizer", choice, error) from error


def build_schedule(settings: Training, *, total: int, epochs: int) -> Callable[[int], float]:
    """Return the factor of the learning rate by the number of steps done.

    Args:
        settings: What schedule, and how long the rate rises first.
        total: Steps of the whole training.
        epochs: Epochs of the whole training.

    Raises:
        ConfigError: Neither torch nor timm has it, it refuses its options, or it waits for scores.
    """
    choice, rising = settings.schedule, round(total * settings.warmup)
    if choice == NamedOptions(name="cosine"):
        return partial(warmup_cosine, total=total, warmup=settings.warmup)
    try:
        if choice.name[:1].isupper():
            curve = _torch_curve(choice, settings.learning_rate, total)
        else:
            curve = _timm_curve(choice, total, epochs)
    except _REFUSALS as error:
        raise _refused("schedule", choice, error) from error
    return lambda step: curve(step) * (min(1.0, (step + 1) / rising) if rising else 1.0)


def warmup_cosine(step: int, *, total: int, warmup: float) -> float:
    """Return the factor of the learning rate at ``step``: linear warm-up, then a half cosine down to zero.

    Args:
        step: Optimization steps done, 0 to ``total``.
        total: Steps of the whole run.
        warmup: Share of the steps in which the rate rises, in [0, 1).

    Source: Loshchilov & Hutter, SGDR, 2017 (one cycle); Goyal et al., 2017 (warm-up).
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / rising
    share = min(1.0, (step - rising) / max(1, total - rising))
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _torch_curve(choice: NamedOptions, rate: float, total: int) -> Callable[[int], float]:
    """Let one of torch's schedules run ahead of the training, so that one that is resumed finds its place again."""
    kind = _of_torch(choice, lr_scheduler, lr_scheduler.LRScheduler)
    known = inspect.signature(kind).parameters
    given = {**dict.fromkeys(_LENGTHS, total), "max_lr": rate, "cycle_momentum": False}
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = kind(optimizer, **{name: value for name, value in given.items() if name in known} | choice.options)
    factors = []
    for _ in range(total):
        factors.append(optimizer.param_groups[0]["lr"] / rate)
        optimizer.step()
        schedule.step()
    return lambda step: factors[min(step, total - 1)]


def _timm_curve(choice: NamedOptions, total: int, epochs: int) -> Callable[[int], float]:
    from timm.scheduler.scheduler_factory import create_scheduler_v2

    optimizer, steps = SGD([nn.Parameter(torch.zeros(1))], lr=1.0), max(1, total // epochs)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=choice.name,
        num_epochs=epochs,
        updates_per_epoch=steps,
        step_on_epochs=False,
        **choice.options,
    )
    if schedule is None:
        raise ValueError("timm has none of that name")

    def factor(step: int) -> float:
        schedule.step_update(min(step, total))
        return float(optimizer.param_groups[0]["lr"])

    return factor


def _of_torch(choice: NamedOptions, module: Any, base: type) -> Any:
    kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base)}
    if choice.name not in kinds:
        raise ValueError(f"torch has none of that name{nearest(choice.name, kinds)}")
    return kinds[choice.name]


def _refused(role: str, choice: NamedOptions, error: Exception) -> ConfigError:
    return ConfigError(
        f"{role} '{choice.name}' can't be used: {first_line(error)}; names in small letters are timm's, such as 'sgd' "
        "or 'poly', others torch's classes, such as 'SGD' or 'PolynomialLR', and options are those of theirs"
    )
