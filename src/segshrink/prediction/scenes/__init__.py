"""Whole scenes: tiles without seams, read, predicted and written at the same time."""

from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.plan import SceneFiles
from segshrink.prediction.scenes.predict import SceneResult, predict_scene, predict_scenes

__all__ = ["SceneFiles", "SceneOptions", "SceneResult", "predict_scene", "predict_scenes"]
