"""Making models small, and measuring how small and fast they are.

Names are imported when they are first asked for, so that files of other runtimes can be measured without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.benchmark import Job, Measurement, measure
    from segshrink.compression.budget import Budget
    from segshrink.compression.profile import profile_backend, profile_model
    from segshrink.compression.pruning import prune
    from segshrink.compression.quantization import QuantizationResult, quantize
    from segshrink.compression.shrinking import shrink

# Public name → the module that it lives in.
_HOMES = {
    "Budget": "budget",
    "Job": "benchmark",
    "Measurement": "benchmark",
    "QuantizationResult": "quantization",
    "measure": "benchmark",
    "profile_backend": "profile",
    "profile_model": "profile",
    "prune": "pruning",
    "quantize": "quantization",
    "shrink": "shrinking",
}

__all__ = [
    "Budget",
    "Job",
    "Measurement",
    "QuantizationResult",
    "measure",
    "profile_backend",
    "profile_model",
    "prune",
    "quantize",
    "shrink",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segshrink.compression' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.compression.{_HOMES[name]}"), name)
