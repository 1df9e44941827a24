"""The hand-written ONNX file of the benchmark's tests."""

from ..compression.benchmark.conftest import onnx_model

__all__ = ["onnx_model"]
