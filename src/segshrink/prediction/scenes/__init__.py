"""Whole scenes: tiles without seams, read, predicted and written at the same time."""

from segshrink.prediction.scenes.archive import Estimate, Shard, read_manifest
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import SceneFiles
from segshrink.prediction.scenes.predict import LeftOut, SceneResult, estimate_scenes, predict_scene, predict_scenes
from segshrink.prediction.scenes.watch import watch_scenes

__all__ = [
    "Estimate",
    "LeftOut",
    "SceneFiles",
    "SceneOptions",
    "SceneResult",
    "Shard",
    "estimate_scenes",
    "predict_scene",
    "predict_scenes",
    "read_manifest",
    "watch_scenes",
]
