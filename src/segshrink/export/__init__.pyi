# What the package gives, for readers, type checkers and lazy_loader.
from .onnx import export_onnx as export_onnx
from .openvino import export_openvino as export_openvino
from .tflite import export_tflite as export_tflite
from .web.page import export_web as export_web
