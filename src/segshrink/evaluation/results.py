"""What an evaluation found, and its file form, ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segshrink.classes import ClassMap, format_color
from segshrink.evaluation.agreement import Agreement
from segshrink.evaluation.calibration import Calibration
from segshrink.evaluation.confusion import Confusion, Scores
from segshrink.evaluation.curves import Curve
from segshrink.evaluation.intervals import Interval


@dataclass(frozen=True)
class ImageResult:
    """Scores of one image.

    Attributes:
        name: The scene's name.
        mean_iou: mIoU over the classes that the image's truth or prediction holds; NaN without labelled pixels.
        accuracy: Share of pixels predicted right; NaN without labelled pixels.
        pixels: Labelled pixels.
        pictures: Paths relative to the run folder by "image", "truth" and "prediction"; None if not among the pictures.
    """

    name: str
    mean_iou: float
    accuracy: float
    pixels: int
    pictures: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; NaN becomes None."""
        return {
            "name": self.name,
            "mean_iou": None if np.isnan(self.mean_iou) else self.mean_iou,
            "accuracy": None if np.isnan(self.accuracy) else self.accuracy,
            "pixels": self.pixels,
            "pictures": None if self.pictures is None else dict(self.pictures),
        }


@dataclass(frozen=True)
class Evaluation:
    """All scores of one model on one split of one data set, every labelled pixel counted once.

    Attributes:
        version: segshrink's version.
        date: When, ISO 8601 with time zone.
        data: Name of the data set.
        split: Such as "val".
        leaking: Whether parts of one scene stand on both sides of the split, so that scores are too good.
        model: Name of the model.
        parameters: Number of its parameters; None when unknown.
        classes: The classes scored.
        confusion: Confusion matrix of the whole set.
        scores: Its scores.
        interval: Bootstrap interval of the mIoU over images.
        calibration: Reliability diagram.
        curves: Precision-recall curve of each class.
        per_image: Scores of each image, in the order evaluated.
        agreement: Agreement with a reference model, if one was given.
    """

    version: str
    date: str
    data: str
    split: str
    leaking: bool
    model: str
    parameters: int | None
    classes: ClassMap
    confusion: Confusion
    scores: Scores
    interval: Interval
    calibration: Calibration
    curves: tuple[Curve, ...]
    per_image: tuple[ImageResult, ...]
    agreement: Agreement | None = None

    @property
    def pixels(self) -> int:
        """Labelled pixels."""
        return int(self.confusion.matrix.sum())

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """Names of classes that the truth holds but that were never predicted: the sign of a collapsed model."""
        truth, predicted = self.confusion.matrix.sum(axis=1), self.confusion.matrix.sum(axis=0)
        return tuple(
            name for name, true, found in zip(self.classes.names, truth, predicted, strict=True) if true and not found
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``; NaN is None."""
        return {
            "segshrink": self.version,
            "date": self.date,
            "data": self.data,
            "split": self.split,
            "leaking": self.leaking,
            "model": {"name": self.model, "parameters": self.parameters},
            "classes": [
                {"name": name, "color": format_color(color)}
                for name, color in zip(self.classes.names, self.classes.colors, strict=True)
            ],
            "images": len(self.per_image),
            "pixels": self.pixels,
            "scores": self.scores.to_dict(),
            "confusion": self.confusion.matrix.tolist(),
            "interval": self.interval.to_dict(),
            "calibration": self.calibration.to_dict(),
            "curves": [curve.to_dict() for curve in self.curves],
            "per_image": [result.to_dict() for result in self.per_image],
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "never_predicted": list(self.never_predicted),
        }
