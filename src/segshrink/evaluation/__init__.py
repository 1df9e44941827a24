"""Evaluation: scores from one confusion matrix over the whole set, curves and calibration from histograms."""

from segshrink.evaluation.calibration import CalibrationHistogram
from segshrink.evaluation.confusion import Confusion
from segshrink.evaluation.curves import ProbabilityHistograms
from segshrink.evaluation.evaluate import described_data, evaluate
from segshrink.evaluation.intervals import bootstrap_interval, paired_bootstrap, welch_interval
from segshrink.evaluation.label_errors import SelfConfidence, label_doubt
from segshrink.evaluation.score_scenes import ArrayPredictor, LabeledScene, ScenePredictor, score_scenes
from segshrink.evaluation_records import EvaluationRecord
from segshrink.scores import Scores, error_adjusted_areas

__all__ = [
    "ArrayPredictor",
    "CalibrationHistogram",
    "Confusion",
    "EvaluationRecord",
    "LabeledScene",
    "ProbabilityHistograms",
    "ScenePredictor",
    "Scores",
    "SelfConfidence",
    "bootstrap_interval",
    "described_data",
    "error_adjusted_areas",
    "evaluate",
    "label_doubt",
    "paired_bootstrap",
    "score_scenes",
    "welch_interval",
]
