"""Networks that take raw pixels: the registry of ids, model folders, and ``SegmentationModel``.

Names are imported when they are first asked for: reading a folder's description needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.models.feature_roles import Role, list_roles
    from segshrink.models.folder import load_model
    from segshrink.models.model import SegmentationModel, count_parameters
    from segshrink.models.registry import build_model, model_ids
    from segshrink.models.taps import Taps, tap_shapes
    from segshrink.models.weights import inherit_encoder, load_encoder_weights, read_tensors

_ROOMS = {
    "Role": "feature_roles",
    "SegmentationModel": "model",
    "Taps": "taps",
    "build_model": "registry",
    "count_parameters": "model",
    "list_roles": "feature_roles",
    "inherit_encoder": "weights",
    "load_encoder_weights": "weights",
    "load_model": "folder",
    "model_ids": "registry",
    "read_tensors": "weights",
    "tap_shapes": "taps",
}

__all__ = [
    "Role",
    "SegmentationModel",
    "Taps",
    "build_model",
    "count_parameters",
    "inherit_encoder",
    "list_roles",
    "load_encoder_weights",
    "load_model",
    "model_ids",
    "read_tensors",
    "tap_shapes",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'segshrink.models' has no attribute '{name}'")
    return getattr(import_module(f"segshrink.models.{_ROOMS[name]}"), name)
