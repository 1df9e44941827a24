"""Evaluation: scores from one confusion matrix over the whole set, curves and calibration from histograms."""

from segshrink.evaluation.calibration import CalibrationHistogram
from segshrink.evaluation.confusion import Confusion, Scores
from segshrink.evaluation.curves import ProbabilityHistograms
from segshrink.evaluation.evaluate import described_data, evaluate
from segshrink.evaluation.intervals import bootstrap_interval
from segshrink.evaluation.score_scenes import ArrayPredictor, LabeledScene, ScenePredictor, score_scenes
from segshrink.run_records import EvaluationRecord

__all__ = [
    "ArrayPredictor",
    "CalibrationHistogram",
    "Confusion",
    "EvaluationRecord",
    "LabeledScene",
    "ProbabilityHistograms",
    "ScenePredictor",
    "Scores",
    "bootstrap_interval",
    "described_data",
    "evaluate",
    "score_scenes",
]
