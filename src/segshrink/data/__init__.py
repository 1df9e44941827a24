"""Images and masks on their way to training: sources, decoded store, crops, augmentation, splits, inspection.

Names are imported when they are first used, so that finding and inspecting files doesn't wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.data.sources import Dataset, Sample, open_dataset
    from segshrink.data.statistics import image_statistics
    from segshrink.data.store import Scene, SceneStore, scenes

_HOMES = {
    "Dataset": "sources",
    "Sample": "sources",
    "Scene": "store",
    "SceneStore": "store",
    "image_statistics": "statistics",
    "open_dataset": "sources",
    "scenes": "store",
}

__all__ = [
    "Dataset",
    "Sample",
    "Scene",
    "SceneStore",
    "image_statistics",
    "open_dataset",
    "scenes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
