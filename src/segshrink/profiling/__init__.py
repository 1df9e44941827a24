"""What a model costs on this machine: parameters, operations, latency and memory, each measured in one way.

Names are imported when they are first asked for, so that files of other runtimes can be measured without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.profiling.latency import Job, Measurement, measure
    from segshrink.profiling.load import Load
    from segshrink.profiling.profile import profile_model

# Public name → the module that it lives in.
_HOMES = {"Job": "latency", "Load": "load", "Measurement": "latency", "measure": "latency", "profile_model": "profile"}

__all__ = ["Job", "Load", "Measurement", "measure", "profile_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segshrink.profiling' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.profiling.{_HOMES[name]}"), name)
