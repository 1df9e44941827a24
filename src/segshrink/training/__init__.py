"""Training: the supervised task, the Distiller, runs that can be resumed, and their measurement."""

from segshrink.training.distiller import Distiller
from segshrink.training.evaluate_run import describe_teacher, evaluate_run, profile_runs
from segshrink.training.run import RunResult, train
from segshrink.training.task import SegmentationTask

__all__ = [
    "Distiller",
    "RunResult",
    "SegmentationTask",
    "describe_teacher",
    "evaluate_run",
    "profile_runs",
    "train",
]
