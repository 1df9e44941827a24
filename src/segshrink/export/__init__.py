"""Writing models for other runtimes, checked against PyTorch before they get their name."""

from segshrink.export.onnx import export_onnx
from segshrink.export.openvino import export_openvino

__all__ = ["export_onnx", "export_openvino"]
