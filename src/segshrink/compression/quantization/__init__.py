"""int8: post-training quantization for ONNX Runtime and OpenVINO, mixed precision, quantization-aware distillation."""

from segshrink.compression.quantization.pipeline import DEFAULT_TILES, RUNTIMES, quantize
from segshrink.compression.quantization.result import QuantizationResult, QuantizationRow

__all__ = ["DEFAULT_TILES", "RUNTIMES", "QuantizationResult", "QuantizationRow", "quantize"]
