"""Measuring models beside each other on this machine: latency, throughput, memory, size and accuracy.

Names are imported when they are first asked for, so that a worker's process stays small.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.benchmark.comparison import benchmark
    from segshrink.compression.benchmark.jobs import Job, Measurement
    from segshrink.compression.benchmark.measuring import measure
    from segshrink.compression.benchmark.results import BenchmarkResult, write_results
    from segshrink.compression.benchmark.workers import measure_memory

# Public name → the module that it lives in.
_HOMES = {
    "BenchmarkResult": "results",
    "Job": "jobs",
    "Measurement": "jobs",
    "benchmark": "comparison",
    "measure": "measuring",
    "measure_memory": "workers",
    "write_results": "results",
}

__all__ = ["BenchmarkResult", "Job", "Measurement", "benchmark", "measure", "measure_memory", "write_results"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segshrink.compression.benchmark' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.compression.benchmark.{_HOMES[name]}"), name)
