"""Making models small: pruning, quantization, budgets and the search.

Names are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.budget import Budget
    from segshrink.compression.pruning import prune
    from segshrink.compression.quantization import QuantizationResult, quantize
    from segshrink.compression.shrinking import shrink

# Public name → the module that it lives in.
_HOMES = {
    "Budget": "budget",
    "QuantizationResult": "quantization",
    "prune": "pruning",
    "quantize": "quantization",
    "shrink": "shrinking",
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
