"""int8: post-training quantisation for ONNX Runtime and OpenVINO, sensitive layers, quantisation-aware distillation.

Names are imported when they are first asked for, so that results can be read without the packages that make them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.compression.quantization.pipeline import DEFAULT_TILES, RUNTIMES, quantize
    from segshrink.compression.quantization.qat import distill_rounded
    from segshrink.compression.quantization.result import QuantizationResult, QuantizationRow

# Public name → the module that it lives in.
_HOMES = {
    "DEFAULT_TILES": "pipeline",
    "RUNTIMES": "pipeline",
    "QuantizationResult": "result",
    "QuantizationRow": "result",
    "distill_rounded": "qat",
    "quantize": "pipeline",
}

__all__ = ["DEFAULT_TILES", "RUNTIMES", "QuantizationResult", "QuantizationRow", "distill_rounded", "quantize"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
