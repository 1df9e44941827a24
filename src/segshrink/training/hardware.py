"""What a training uses of the machine: threads and number formats."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from segshrink.config import Crops
from segshrink.errors import ConfigError
from segshrink.machine import memory_limit, usable_cores
from segshrink.prediction.runtimes.torch import computes_in_bf16

# More threads than this end the process on some machines.
LARGEST_THREADS = 1024
LightningPrecision = Literal["bf16-mixed", "16-mixed", "32-true"]


def free_threads() -> int:
    """Return how many of this process's cores are less than half busy just now, at least 1.

    Two OpenMP threads on one free core run several times slower than one.
    """
    busy = psutil.cpu_percent(interval=0.5, percpu=True)
    return max(1, sum(1 for core in usable_cores() if core < len(busy) and busy[core] < 50))


def use_free_threads() -> None:
    """Let torch use the cores that are free, and no more than it was allowed."""
    torch.set_num_threads(min(torch.get_num_threads(), free_threads()))


def accelerator() -> Literal["cuda", "cpu"]:
    """Return what trains, in the words of torch and Lightning."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """Return the name of the GPU that trains, or "cpu"."""
    return torch.cuda.get_device_name() if accelerator() == "cuda" else "cpu"


def lightning_precision(wanted: str) -> LightningPrecision:
    """Translate a recipe's precision for this machine's device.

    Raises:
        ConfigError: fp16 on a CPU, where it is thousands of times slower; bf16 where it isn't computed in.
    """
    device = torch.device(accelerator())
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("training.precision=fp16 is thousands of times slower on a CPU; use auto, bf16 or 32")
    if wanted == "bf16" and not computes_in_bf16(device):
        raise ConfigError(f"training.precision=bf16: {device_name()} doesn't compute in bf16; use auto or 32")
    if wanted == "auto":
        return "bf16-mixed" if computes_in_bf16(device) else "32-true"
    names: dict[str, LightningPrecision] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "32": "32-true"}
    return names[wanted]


def check_memory(crops: Crops, *, bands: int, classes: int) -> None:
    """Refuse crops of which not even a step's images, logits and their gradients fit into memory.

    Raises:
        ConfigError: They don't; says what they need and what there is.
    """
    there = torch.cuda.mem_get_info()[1] if accelerator() == "cuda" else memory_limit()
    needed = 4 * crops.batch_size * crops.size**2 * (bands + 3 * classes)
    if there is not None and needed > there:
        raise ConfigError(
            f"crops.size={crops.size} and crops.batch_size={crops.batch_size} need more than {needed / 1e9:.1f} GB of "
            f"memory, and there are {there / 1e9:.1f} GB; choose smaller or fewer crops"
        )
