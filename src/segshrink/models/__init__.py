"""Networks that take raw pixels: the registry of ids, model folders, and ``SegmentationModel``.

Names are imported when they are first asked for, so that ``segshrink.models.description`` can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.models.description import ModelDescription
    from segshrink.models.folder import load_model
    from segshrink.models.model import SegmentationModel, count_parameters
    from segshrink.models.normalization import Normalization
    from segshrink.models.registry import build_model, model_ids
    from segshrink.models.weights import load_encoder_weights, read_tensors

_ROOMS = {
    "ModelDescription": "description",
    "Normalization": "normalization",
    "SegmentationModel": "model",
    "build_model": "registry",
    "count_parameters": "model",
    "load_encoder_weights": "weights",
    "load_model": "folder",
    "model_ids": "registry",
    "read_tensors": "weights",
}

__all__ = [
    "ModelDescription",
    "Normalization",
    "SegmentationModel",
    "build_model",
    "count_parameters",
    "load_encoder_weights",
    "load_model",
    "model_ids",
    "read_tensors",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'segshrink.models' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.models.{_ROOMS[name]}"), name)
