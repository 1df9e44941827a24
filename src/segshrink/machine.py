"""What machine a number was measured on. Imports no torch; says what torch uses where it is loaded already."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

# As Linux names them, x86 first, then ARM.
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),
)


def describe_machine(*, threads: int | None = None) -> dict[str, Any]:
    """Describe this machine for a run's or a profile's records.

    Args:
        threads: Threads that the measured work used; by default torch's setting where torch is loaded, else the
            number of cores.

    Returns:
        ``cpu`` (model name and `cpu_instructions`, for processors of one name differ in them), ``cores`` (that this
        process may use), ``threads``, ``memory_gb`` (decimal gigabytes of physical memory, None where unknown),
        ``torch`` (version, None where absent) and ``python``.
    """
    cores = available_cores()
    if threads is None:
        torch = sys.modules.get("torch")
        threads = cores if torch is None else int(torch.get_num_threads())
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "threads": threads,
        "memory_gb": _memory_gb(),
        "torch": package_versions("torch").get("torch"),
        "python": platform.python_version(),
    }


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def available_cores() -> int:
    """Return how many cores this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Return the largest resident set this process had so far, in 10^6 bytes."""
    try:
        # Not getrusage: on Linux a program started by another inherits the largest resident set of its parent.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return round(kibibytes * 1024 / 1e6, 1)
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def cpu_instructions() -> tuple[str, ...]:
    """Return which instruction sets this processor has that decide how fast and how exactly networks run.

    Empty where Linux doesn't tell.
    """
    flags = {flag for key in ("flags", "Features") for line in _cpu_info(key) for flag in line.split()}
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def _cpu_name() -> str:
    names = _cpu_info("model name")
    name = next((name for name in names if name), platform.processor() or platform.machine() or "unknown")
    instructions = ", ".join(cpu_instructions())
    return f"{name} ({instructions})" if instructions else name


def _cpu_info(key: str) -> list[str]:
    """Return what Linux says of its processors under one key, by processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None
