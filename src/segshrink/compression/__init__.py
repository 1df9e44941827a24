"""Making models small: pruning, quantization, budgets and the search.

Names are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.budget import Budget
    from segshrink.compression.pruning.prune import prune
    from segshrink.compression.pruning.width_scaling import shrink
    from segshrink.compression.quantization import QuantizationResult, quantize

# Public name → the module that it lives in.
_HOMES = {
    "Budget": "budget",
    "QuantizationResult": "quantization",
    "prune": "pruning.prune",
    "quantize": "quantization",
    "shrink": "pruning.width_scaling",
}

__all__ = [
    "Budget",
    "QuantizationResult",
    "prune",
    "quantize",
    "shrink",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segshrink.compression' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.compression.{_HOMES[name]}"), name)
