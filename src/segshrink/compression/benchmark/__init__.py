"""Measuring models beside each other on this machine: latency, throughput, memory, size and accuracy.

Names are imported when they are first asked for, so that files of other runtimes can be measured without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.benchmark.comparison import benchmark
    from segshrink.compression.benchmark.results import BenchmarkResult, write_results

# Public name → the module that it lives in.
_HOMES = {"BenchmarkResult": "results", "benchmark": "comparison", "write_results": "results"}

__all__ = ["BenchmarkResult", "benchmark", "write_results"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segshrink.compression.benchmark' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.compression.benchmark.{_HOMES[name]}"), name)
