"""Images and masks on their way to training: sources, decoded store, crops, augmentation, splits, inspection.

Names are imported when they are first used, so that finding and inspecting files doesn't wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.data.calibration import calibration_tiles
    from segshrink.data.crop_dataset import CropDataset
    from segshrink.data.crops import CropPlan, cut, plan_crop
    from segshrink.data.findings import Inspection, Problem
    from segshrink.data.inspection import inspect_dataset
    from segshrink.data.module import CropModule
    from segshrink.data.sources import Dataset, Sample, open_dataset, refuse_other_bands
    from segshrink.data.statistics import absent_classes, image_statistics
    from segshrink.data.store import Scene, SceneStore, scenes
    from segshrink.data.synthetic import write_scenes

# Public name → the module that it lives in.
_HOMES = {
    "CropDataset": "crop_dataset",
    "CropModule": "module",
    "CropPlan": "crops",
    "Dataset": "sources",
    "Inspection": "findings",
    "Problem": "findings",
    "Sample": "sources",
    "Scene": "store",
    "SceneStore": "store",
    "absent_classes": "statistics",
    "calibration_tiles": "calibration",
    "cut": "crops",
    "image_statistics": "statistics",
    "inspect_dataset": "inspection",
    "open_dataset": "sources",
    "refuse_other_bands": "sources",
    "plan_crop": "crops",
    "scenes": "store",
    "write_scenes": "synthetic",
}

__all__ = [
    "CropDataset",
    "CropModule",
    "CropPlan",
    "Dataset",
    "Inspection",
    "Problem",
    "Sample",
    "Scene",
    "SceneStore",
    "absent_classes",
    "calibration_tiles",
    "cut",
    "image_statistics",
    "inspect_dataset",
    "open_dataset",
    "plan_crop",
    "refuse_other_bands",
    "scenes",
    "write_scenes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
