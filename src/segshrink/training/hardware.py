"""What a training uses of the machine: threads and number formats."""

from __future__ import annotations

import os
from typing import Literal

import psutil
import torch

from segshrink.errors import ConfigError
from segshrink.prediction.torch_backend import computes_in_bf16

LightningPrecision = Literal["bf16-mixed", "16-mixed", "32-true"]


def free_threads() -> int:
    """Return how many of this process's cores are less than half busy just now, at least 1.

    Two OpenMP threads on one free core run several times slower than one.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    busy = psutil.cpu_percent(interval=0.5, percpu=True)
    return max(1, sum(1 for core in usable if core < len(busy) and busy[core] < 50))


def device_name() -> str:
    """Return the name of the GPU that trains, or "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def lightning_precision(wanted: str) -> LightningPrecision:
    """Translate a recipe's precision for this machine's device.

    Raises:
        ConfigError: fp16 on a CPU, where it is thousands of times slower.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("training.precision=fp16 is thousands of times slower on a CPU; use auto, bf16 or 32")
    if wanted == "auto":
        return "bf16-mixed" if computes_in_bf16(device) else "32-true"
    names: dict[str, LightningPrecision] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "32": "32-true"}
    return names[wanted]
