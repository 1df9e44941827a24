# What the package gives, for readers, type checkers and lazy_loader.
from .backends import Backend as Backend
from .backends import open_backend as open_backend
from .misuse import Misuse as Misuse
from .predictor import Prediction as Prediction
from .predictor import Predictor as Predictor
from .runtimes.litert import LiteRtBackend as LiteRtBackend
from .runtimes.onnx import OnnxBackend as OnnxBackend
from .runtimes.openvino import OpenVinoBackend as OpenVinoBackend
from .runtimes.torch import TorchBackend as TorchBackend
from .scenes import SceneOptions as SceneOptions
from .scenes import Shard as Shard
from .scenes import estimate_scenes as estimate_scenes
from .scenes import predict_scene as predict_scene
from .scenes import predict_scenes as predict_scenes
from .scenes import watch_scenes as watch_scenes
