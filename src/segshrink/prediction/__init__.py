"""Prediction without torch: backends run a model on batches of tiles, the predictor blends them into whole images."""

from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.misuse import Misuse
from segshrink.prediction.predictor import Prediction, Predictor
from segshrink.prediction.runtimes.litert import LiteRtBackend
from segshrink.prediction.runtimes.onnx import OnnxBackend
from segshrink.prediction.runtimes.openvino import OpenVinoBackend
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.prediction.scenes import (
    SceneOptions,
    Shard,
    estimate_scenes,
    predict_scene,
    predict_scenes,
    watch_scenes,
)

__all__ = [
    "Backend",
    "LiteRtBackend",
    "Misuse",
    "OnnxBackend",
    "OpenVinoBackend",
    "Prediction",
    "Predictor",
    "SceneOptions",
    "Shard",
    "TorchBackend",
    "estimate_scenes",
    "open_backend",
    "predict_scene",
    "predict_scenes",
    "watch_scenes",
]
