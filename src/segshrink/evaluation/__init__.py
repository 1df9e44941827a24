"""Evaluation: scores from one confusion matrix over the whole set, curves and calibration from histograms."""

from segshrink.evaluation.confusion import Confusion, Scores

__all__ = ["Confusion", "Scores"]
