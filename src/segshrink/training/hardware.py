"""What a training uses of the machine: threads, number formats, memory and processor time."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from segshrink.config import Crops, Training
from segshrink.errors import ConfigError
from segshrink.machine import (
    memory_limit,
    peak_memory_mb,
    processor_seconds,
    resident_memory_mb,
    restart_peak_memory,
    usable_cores,
)
from segshrink.prediction.runtimes.torch import computes_in_bf16
from segshrink.run_records import RunRecord

# What Python and the libraries hold: read when this room has just been imported, before there are images and networks.
LIBRARIES_MB = resident_memory_mb()
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
        if computes_in_bf16(device):
            return "bf16-mixed"
        return "16-mixed" if device.type == "cuda" else "32-true"
    names: dict[str, LightningPrecision] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "32": "32-true"}
    return names[wanted]


def check_devices(training: Training) -> None:
    """Refuse more devices than there are, and what only GPUs can do together.

    Raises:
        ConfigError: There are fewer; or batch normalization is to be synchronized on the CPU, which torch can't.
    """
    if accelerator() == "cpu":
        if training.sync_batchnorm:
            raise ConfigError("torch synchronizes batch normalization on GPUs only; leave training.sync_batchnorm out")
    elif training.devices > (there := torch.cuda.device_count()):
        raise ConfigError(f"training.devices={training.devices}, but this process sees {there} GPUs; set it to {there}")


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


class ResourceUse:
    """Measures what a training takes between its making and each ``record``."""

    def __init__(self) -> None:
        self._before = processor_seconds()
        restart_peak_memory()
        if accelerator() == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def record(self, earlier: RunRecord | None = None) -> dict[str, float | None]:
        """Return the fields of ``run.json`` that say so: the largest memory and the sum of times over all resumes.

        Args:
            earlier: What the run recorded before it was resumed.
        """
        peak = peak_memory_mb()
        use: dict[str, float | None] = {
            "peak_memory_mb": peak,
            "memory_beyond_libraries_mb": round(max(0.0, peak - LIBRARIES_MB), 1),
            "gpu_peak_memory_mb": None,
        }
        if accelerator() == "cuda":
            use["gpu_peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
        for name, value in use.items():
            use[name] = max((each for each in (value, getattr(earlier, name, None)) if each is not None), default=None)
        spent = processor_seconds() - self._before + (getattr(earlier, "processor_seconds", None) or 0.0)
        return {**use, "processor_seconds": round(spent, 2)}
