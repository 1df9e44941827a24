"""Prediction without torch: backends run a model on batches of tiles, the predictor blends them into whole images."""

from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.onnx_backend import OnnxBackend
from segshrink.prediction.openvino_backend import OpenVinoBackend
from segshrink.prediction.predictor import Prediction, Predictor
from segshrink.prediction.torch_backend import TorchBackend

__all__ = [
    "Backend",
    "OnnxBackend",
    "OpenVinoBackend",
    "Prediction",
    "Predictor",
    "TorchBackend",
    "open_backend",
]
