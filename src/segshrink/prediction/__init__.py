"""Prediction without torch: backends run a model on batches of tiles, the predictor blends them into whole images."""

from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.litert_backend import LiteRtBackend
from segshrink.prediction.onnx_backend import OnnxBackend
from segshrink.prediction.openvino_backend import OpenVinoBackend
from segshrink.prediction.predictor import Prediction, Predictor
from segshrink.prediction.scenes import SceneOptions, predict_scene, predict_scenes
from segshrink.prediction.torch_backend import TorchBackend

__all__ = [
    "Backend",
    "LiteRtBackend",
    "OnnxBackend",
    "OpenVinoBackend",
    "Prediction",
    "Predictor",
    "SceneOptions",
    "TorchBackend",
    "open_backend",
    "predict_scene",
    "predict_scenes",
]
