from .distiller import Distiller as Distiller
from .evaluate_run import describe_teacher as describe_teacher
from .evaluate_run import evaluate_run as evaluate_run
from .evaluate_run import profile_runs as profile_runs
from .run import RunResult as RunResult
from .run import train as train
from .task import SegmentationTask as SegmentationTask
