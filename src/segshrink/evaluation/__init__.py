"""Evaluation: scores from one confusion matrix over the whole set, curves and calibration from histograms."""

from segshrink.evaluation.agreement import Agreement, agreement_between, stored_mean_iou
from segshrink.evaluation.calibration import Calibration, CalibrationHistogram
from segshrink.evaluation.confusion import Confusion, Scores
from segshrink.evaluation.curves import Curve, ProbabilityHistograms
from segshrink.evaluation.evaluate import ArrayPredictor, LabeledScene, ScenePredictor, evaluate
from segshrink.evaluation.intervals import Interval, bootstrap_interval
from segshrink.evaluation.results import Evaluation, ImageResult

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
    "evaluate",
    "stored_mean_iou",
]
