"""Turn a big segmentation model into a small one that is as good, and prove it.

The names below and the rooms they live in are imported when they are first used: ``import segshrink`` waits for
neither torch nor anything else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshrink.classes import IGNORE_INDEX, ClassMap
    from segshrink.compression import Budget, QuantizationResult, shrink
    from segshrink.config import DatasetDescription, Recipe, load_dataset, load_recipe
    from segshrink.data import Dataset, Inspection, SceneStore, inspect_dataset, open_dataset, write_scenes
    from segshrink.errors import SegshrinkError
    from segshrink.evaluation import Confusion, EvaluationRecord, ProbabilityHistograms, Scores, evaluate
    from segshrink.export import export_onnx, export_openvino, export_tflite
    from segshrink.model_description import Normalization
    from segshrink.models import SegmentationModel, build_model, count_parameters, load_model
    from segshrink.prediction import Prediction, Predictor, SceneOptions, open_backend, predict_scene, predict_scenes
    from segshrink.profiling import Job, Measurement, measure, profile_model
    from segshrink.profiling.benchmark import benchmark
    from segshrink.report import build_report
    from segshrink.run_folder import RunFolder
    from segshrink.teachers import Ensemble, Teacher, TeacherCache, TorchTeacher, open_teacher, open_teachers
    from segshrink.training import Distiller, SegmentationTask
    from segshrink.workflows.compress import compress
    from segshrink.workflows.demo import demo
    from segshrink.workflows.diagnose import diagnose
    from segshrink.workflows.distill import DistillResult, distill
    from segshrink.workflows.export import export_model
    from segshrink.workflows.prune import prune
    from segshrink.workflows.quantize import quantize
    from segshrink.workflows.train import train

__version__ = "0.1.0"

# Home → the names of it that are public here.
_PUBLIC = {
    "classes": ("IGNORE_INDEX", "ClassMap"),
    "compression": ("Budget", "QuantizationResult", "shrink"),
    "config": ("DatasetDescription", "Recipe", "load_dataset", "load_recipe"),
    "data": ("Dataset", "Inspection", "SceneStore", "inspect_dataset", "open_dataset", "write_scenes"),
    "errors": ("SegshrinkError",),
    "evaluation": ("Confusion", "EvaluationRecord", "ProbabilityHistograms", "Scores", "evaluate"),
    "export": ("export_onnx", "export_openvino", "export_tflite"),
    "model_description": ("Normalization",),
    "models": ("SegmentationModel", "build_model", "count_parameters", "load_model"),
    "prediction": ("Prediction", "Predictor", "SceneOptions", "open_backend", "predict_scene", "predict_scenes"),
    "profiling": ("Job", "Measurement", "measure", "profile_model"),
    "profiling.benchmark": ("benchmark",),
    "report": ("build_report",),
    "run_folder": ("RunFolder",),
    "teachers": ("Ensemble", "Teacher", "TeacherCache", "TorchTeacher", "open_teacher", "open_teachers"),
    "training": ("Distiller", "SegmentationTask"),
    "workflows.compress": ("compress",),
    "workflows.demo": ("demo",),
    "workflows.diagnose": ("diagnose",),
    "workflows.distill": ("DistillResult", "distill"),
    "workflows.export": ("export_model",),
    "workflows.prune": ("prune",),
    "workflows.quantize": ("quantize",),
    "workflows.train": ("train",),
}
_HOMES = {name: home for home, names in _PUBLIC.items() for name in names}
_ROOMS = {home.partition(".")[0] for home in _PUBLIC} | {"imagery", "losses", "tiling"}

__all__ = [
    "IGNORE_INDEX",
    "Budget",
    "ClassMap",
    "Confusion",
    "Dataset",
    "DatasetDescription",
    "DistillResult",
    "Distiller",
    "Ensemble",
    "EvaluationRecord",
    "Inspection",
    "Job",
    "Measurement",
    "Normalization",
    "Prediction",
    "Predictor",
    "ProbabilityHistograms",
    "QuantizationResult",
    "Recipe",
    "RunFolder",
    "SceneOptions",
    "SceneStore",
    "Scores",
    "SegmentationModel",
    "SegmentationTask",
    "SegshrinkError",
    "Teacher",
    "TeacherCache",
    "TorchTeacher",
    "__version__",
    "benchmark",
    "build_model",
    "build_report",
    "compress",
    "count_parameters",
    "demo",
    "diagnose",
    "distill",
    "evaluate",
    "export_model",
    "export_onnx",
    "export_openvino",
    "export_tflite",
    "inspect_dataset",
    "load_dataset",
    "load_model",
    "load_recipe",
    "measure",
    "open_backend",
    "open_dataset",
    "open_teacher",
    "open_teachers",
    "predict_scene",
    "predict_scenes",
    "profile_model",
    "prune",
    "quantize",
    "shrink",
    "train",
    "write_scenes",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from segshrink.extras import missing_extra

        explained = missing_extra(error, feature=f"segshrink.{name}")
        if explained is None:
            raise
        raise explained from error


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
