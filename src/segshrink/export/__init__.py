"""Writing models for other runtimes, checked against PyTorch before they get their name."""

from segshrink.export.onnx import export_onnx
from segshrink.export.openvino import export_openvino
from segshrink.export.tflite import export_tflite

__all__ = ["export_onnx", "export_openvino", "export_tflite"]
