"""Writing models for other runtimes, checked against PyTorch before they get their name."""

from segshrink.export.onnx import export_onnx

__all__ = ["export_onnx"]
