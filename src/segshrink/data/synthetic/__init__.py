"""Synthetic aerial scenes with true labels: data to try, test and measure distillation without any download."""

from segshrink.data.synthetic.labels import CLASSES
from segshrink.data.synthetic.scene import SyntheticScene, generate_scene
from segshrink.data.synthetic.writing import write_scenes

__all__ = ["CLASSES", "SyntheticScene", "generate_scene", "write_scenes"]
