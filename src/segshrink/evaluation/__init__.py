"""Evaluation: scores from one confusion matrix over the whole set, curves and calibration from histograms."""

from segshrink.evaluation.agreement import Agreement, agreement_between, stored_mean_iou
from segshrink.evaluation.calibration import Calibration, CalibrationHistogram
from segshrink.evaluation.confusion import Confusion, Scores
from segshrink.evaluation.curves import Curve, ProbabilityHistograms
from segshrink.evaluation.evaluate import described_data, evaluate
from segshrink.evaluation.intervals import Interval, bootstrap_interval
from segshrink.evaluation.results import Evaluation, ImageResult
from segshrink.evaluation.score_scenes import ArrayPredictor, LabeledScene, ScenePredictor, score_scenes

__all__ = [
    "Agreement",
    "ArrayPredictor",
    "Calibration",
    "CalibrationHistogram",
    "Confusion",
    "Curve",
    "Evaluation",
    "ImageResult",
    "Interval",
    "LabeledScene",
    "ProbabilityHistograms",
    "ScenePredictor",
    "Scores",
    "agreement_between",
    "bootstrap_interval",
    "described_data",
    "evaluate",
    "score_scenes",
    "stored_mean_iou",
]
