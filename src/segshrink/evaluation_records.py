"""The schema of ``evaluation.json``: scores, intervals, curves and areas, and the pictures of an evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from segshrink.records import Count, Flag, Many, Number, Record, Score, Text
from segshrink.version import __version__

# A point of a curve: six digits say enough on disk.
Point = Annotated[Number, PlainSerializer(lambda value: round(value, 6), when_used="json")]
_GRAY = "#808080"


def _color_or_gray(text: str) -> str:
    """Return ``text`` if it is ``#rrggbb``, else gray: it goes into style sheets."""
    return text if re.fullmatch(r"#[0-9A-Fa-f]{6}", text) else _GRAY


class ModelRecord(Record):
    """The model that was evaluated."""

    name: Text | None = None
    parameters: Count | None = None


class ClassRecord(Record):
    """A class; ``color`` is ``#rrggbb``."""

    name: Text
    color: Annotated[str, AfterValidator(_color_or_gray)] = _GRAY


class ScoresRecord(Record):
    """``segshrink.evaluation.Scores`` on disk: scores of one confusion matrix; None where one isn't defined."""

    mean_iou: Number
    mean_accuracy: Score = None
    accuracy: Score = None
    frequency_weighted_iou: Score = None
    kappa: Score = None
    iou: Many[Score]
    precision: Many[Score] = ()
    recall: Many[Score] = ()
    f1: Many[Score] = ()
    support: Many[Count] = ()
    macro_precision: Score = None
    macro_recall: Score = None
    macro_f1: Score = None
    weighted_precision: Score = None
    weighted_recall: Score = None
    weighted_f1: Score = None


class IntervalRecord(Record):
    """Bootstrap intervals of the mIoU and of the overall accuracy.

    Attributes:
        mean_iou: Ends of the mIoU's.
        accuracy: Ends of the overall accuracy's.
        level: Share of resamples between the ends.
        resamples: How many were drawn.
    """

    mean_iou: tuple[Number, Number]
    accuracy: tuple[Number, Number] | None = None
    level: Number = 0.95
    resamples: Count | None = None


class AreaRecord(Record):
    """What a class covers of the evaluated images, as shares in [0, 1] of all mapped pixels.

    Attributes:
        mapped: By the model's maps.
        adjusted: Corrected by the maps' errors, see ``segshrink.scores.error_adjusted_areas``; None where a class that
            the maps hold was never judged.
        low: Lower end of its 95 % bootstrap interval over images; None for fewer than two images.
        high: Upper end.
    """

    mapped: Number
    adjusted: Score = None
    low: Score = None
    high: Score = None


class CalibrationBin(Record):
    """Pixels whose largest probability falls into one bin: its mean, the share that is right; None in empty bins."""

    confidence: Score = None
    accuracy: Score = None
    count: Count | None = None


class CalibrationRecord(Record):
    """A reliability diagram.

    Attributes:
        expected_calibration_error: Mean over pixels of |accuracy − confidence| of the pixel's bin (Guo et al. 2017,
            L1); None without pixels.
        bins: By rising confidence.
    """

    expected_calibration_error: Score = None
    bins: Many[CalibrationBin] = ()


class CurveRecord(Record):
    """Precision and recall of one class at falling thresholds.

    Attributes:
        name: Class name.
        average_precision: Σ (recall_n − recall_{n−1}) · precision_n over all thresholds, without interpolation; None
            when the class isn't in the truth.
        precision: At most 200 points, by rising recall; empty when the class isn't in the truth.
        recall: The same points.
    """

    name: Text = Field(alias="class")
    average_precision: Score = None
    precision: Many[Point] = ()
    recall: Many[Point] = ()

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.precision) != len(self.recall):
            raise ValueError(
                f"must hold as many precisions as recalls, found {len(self.precision)}, {len(self.recall)}"
            )
        return self


class PicturesRecord(Record):
    """Files of one evaluated image, relative to the run folder; truth and prediction hold class indices."""

    image: str
    truth: str
    prediction: str


class ImageRecord(Record):
    """Scores of one image.

    Attributes:
        name: The scene's name.
        mean_iou: mIoU over the classes that the image's truth or prediction holds; None without labeled pixels.
        accuracy: Share of pixels predicted right; None without labeled pixels.
        pixels: Labeled pixels.
        counts: True, predicted and rightly predicted pixels of each class, (3, C).
        pictures: None if the image isn't among those that pictures were kept of.
    """

    name: Text
    mean_iou: Score = None
    accuracy: Score = None
    pixels: Count = 0
    counts: Many[Many[Count]] = ()
    pictures: PicturesRecord | None = None


class AgreementRecord(Record):
    """Agreement of a model with a reference, over every pixel of the images, labeled or not.

    Attributes:
        reference: Name of the reference.
        accuracy: Share of pixels predicted the same.
        mean_iou: mIoU of the predictions, with the reference's as truth.
        images: Images compared.
    """

    reference: Text | None = Field(default=None, alias="with")
    accuracy: Score = None
    mean_iou: Score = None
    images: Count | None = None


class SoftAnswersRecord(Record):
    """Mean probabilities for the pixels of each true class.

    Attributes:
        temperature: Of the softmax.
        matrix: (C, C), [true][answered], rows of sum 1; None where the truth doesn't hold a class.
    """

    temperature: Number
    matrix: Many[Many[Score]]


class InnerRecord(Record):
    """Scores of the pixels that are more than ``border`` pixels away from any pixel of another class."""

    border: Count
    pixels: Count
    scores: ScoresRecord
    confusion: Many[Many[Count]]
    interval: IntervalRecord | None = None


class EvaluationRecord(Record):
    """``evaluation.json``: scores of one model on one split of one data set, every labeled pixel counted once.

    Attributes:
        segshrink: Version of the program that wrote it.
        date: When, ISO 8601 with time zone.
        data: Name of the data set.
        split: Such as "val".
        leaking: Whether parts of one scene stand on both sides of the split, so that scores are too good.
        truth: What judged: labels, or the answers of the student's teacher, so that scores are the agreement with it.
        model: What was evaluated.
        classes: The C classes scored.
        images: How many.
        pixels: Labeled pixels.
        scores: Of the whole set.
        confusion: (C, C) pixel counts, [true][predicted].
        interval: Of the mIoU and the accuracy over images; None for fewer than two images.
        areas: What each class covers.
        calibration: Reliability diagram.
        curves: Precision-recall curve of each class against the rest.
        pooled_curve: Precision and recall of all (pixel, class) pairs together, the micro average.
        soft_answers: Of a teacher, at the temperature that it teaches with.
        per_image: Scores of each image, in the order evaluated.
        agreement: Agreement with a reference model, if one was given.
        inner: Scores away from label borders, if they were asked for.
        never_predicted: Names of classes that the truth holds but that were never predicted.
    """

    remedy = "evaluate the model again"

    segshrink: Text = __version__
    date: Text | None = None
    data: Text
    split: Text
    leaking: Flag = False
    truth: Literal["labels", "teacher"] = "labels"
    model: ModelRecord = ModelRecord()
    classes: Annotated[Many[ClassRecord], Field(min_length=1)]
    images: Count = 0
    pixels: Count = 0
    scores: ScoresRecord
    confusion: Many[Many[Count]]
    interval: IntervalRecord | None = None
    areas: Many[AreaRecord] = ()
    calibration: CalibrationRecord = CalibrationRecord()
    curves: Many[CurveRecord] = ()
    pooled_curve: CurveRecord | None = None
    soft_answers: SoftAnswersRecord | None = None
    per_image: Many[ImageRecord] = ()
    agreement: AgreementRecord | None = None
    inner: InnerRecord | None = None
    never_predicted: Many[Text] = ()

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        classes = len(self.classes)
        if len(self.confusion) != classes or any(len(row) != classes for row in self.confusion):
            raise ValueError(f"must hold in 'confusion' {classes} lists of {classes} numbers, as there are classes")
        if len(self.scores.iou) != classes:
            raise ValueError(f"must hold in 'scores.iou' {classes} numbers, found {len(self.scores.iou)}")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(entry.name for entry in self.classes)

    def is_comparable(self, other: EvaluationRecord) -> bool:
        """Whether another was made on the same split of the same data with the same classes and pixels."""
        mine, others = (
            (record.data, record.split, record.images, record.pixels, record.class_names) for record in (self, other)
        )
        return mine == others
