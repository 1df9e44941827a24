"""Scores of a predictor over whole scenes at native resolution, with pictures and stored predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.colors import format_color
from segshrink.errors import DataError, ModelError
from segshrink.evaluation.agreement import Comparison
from segshrink.evaluation.areas import MappedAreas
from segshrink.evaluation.borders import without_borders
from segshrink.evaluation.calibration import CalibrationHistogram
from segshrink.evaluation.confusion import Confusion
from segshrink.evaluation.curves import ProbabilityHistograms
from segshrink.evaluation.intervals import bootstrap_interval
from segshrink.evaluation.pictures import SceneFiles
from segshrink.evaluation.soft_answers import SoftAnswers
from segshrink.evaluation_records import (
    ClassRecord,
    EvaluationRecord,
    ImageRecord,
    InnerRecord,
    ModelRecord,
    ScoresRecord,
)
from segshrink.files import replacing
from segshrink.folder_lock import claimed
from segshrink.prediction import Prediction
from segshrink.run_folder import RunFolder
from segshrink.scores import marginals, scores_of


class ArrayPredictor(Protocol):
    """``segshrink.prediction.Predictor``, or anything that segments an array as it does."""

    def predict_array(self, image: NDArray[Any], /) -> Prediction:
        """Segment (H, W, bands) raw pixel values into classes (H, W) and probabilities (C, H, W)."""


class LabeledScene(Protocol):
    """What it is evaluated on: ``segshrink.data.Scene``.

    It may have ``valid`` as well, (H, W) bools: where it is False there is no image, and no prediction is kept or
    counted. Without it, or with None, the image is everywhere.
    """

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""

    @property
    def image(self) -> NDArray[Any]:
        """(H, W, bands) raw pixel values."""

    @property
    def target(self) -> NDArray[np.uint8]:
        """(H, W) class indices, 255 where unknown."""


class ScenePredictor(Protocol):
    """What segments a scene that it may know by name: ``segshrink.teachers.Teacher``."""

    def predict_scene(self, scene: LabeledScene, /) -> Prediction:
        """Segment a scene into classes (H, W) and probabilities (C, H, W); its target is none of its business."""


AnyPredictor = ArrayPredictor | ScenePredictor


class Average:
    """The mean of several predictors' probabilities, as one predictor.

    Attributes:
        parts: At least one; all of the same classes.
    """

    def __init__(self, parts: Sequence[AnyPredictor]) -> None:
        self.parts = tuple(parts)

    def predict_scene(self, scene: LabeledScene, /) -> Prediction:
        """Segment a scene into classes (H, W) and probabilities (C, H, W)."""
        first, *others = (_predicted(part, scene).probabilities for part in self.parts)
        mean = sum(others, np.asarray(first, np.float32)) / np.float32(len(self.parts))
        return Prediction(mean.argmax(axis=0).astype(np.uint8), mean)


Scenes = Iterable[LabeledScene] | Callable[[], Iterable[LabeledScene]]


def score_scenes(
    predictor: AnyPredictor,
    scenes: Scenes,
    *,
    classes: ClassMap,
    split: str,
    data_name: str,
    leaking: bool,
    truth: Literal["labels", "teacher"] = "labels",
    model_name: str,
    parameters: int | None,
    out: Path | None,
    pictures: int = 60,
    reference: str | Path | None = None,
    temperature: float | None = None,
    border: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationRecord:
    """Score a model on every labeled pixel of every scene, once, at native resolution.

    Args:
        predictor: Segments a whole scene; tiling and blending are its own.
        scenes: Iterated twice (names first): a sequence, an iterable that can start again, or a function that gives a
            fresh iterator. A bare iterator is held in memory.
        classes: The classes of the truth and of the predictor.
        split: Name of the split, such as "val".
        data_name: Name of the data set.
        leaking: Whether parts of one scene stand on both sides of the split.
        truth: What the targets are.
        model_name: Name of the model.
        parameters: Number of its parameters; None when unknown.
        out: Run folder that gets ``evaluation.json``, ``evaluation/`` with pictures, and the prediction of every scene
            in ``evaluation/predictions/NAME.png``; an earlier evaluation of the same split is replaced as a whole.
            None writes nothing.
        pictures: Largest number of scenes shown as pictures.
        reference: Run folder evaluated on the same scenes, to measure agreement with.
        temperature: Of a teacher: tell what its answers say about the classes at this temperature.
        border: Score the pixels further than this from label borders, too; at least 1 pixel.
        overwrite: Replace an evaluation of another split as well, and files that this program did not write.
        progress: Called after each scene with the number done and of all.

    Returns:
        The scores, as in ``evaluation.json``.

    Raises:
        DataError: No scene, no labeled pixel, a repeated or unusable name, or a scene that contradicts the classes.
        ModelError: The predictor's classes aren't ``classes``, or it can't take the scenes.
        FileError: ``out`` can't be written or holds something else, or the reference holds no prediction of a scene.
    """
    for part in predictor.parts if isinstance(predictor, Average) else (predictor,):
        _check_classes(part, classes)
    folder = None if out is None else RunFolder(out)
    tally = _Tally(
        classes,
        None if reference is None else Comparison(reference, classes),
        None if temperature is None else SoftAnswers(len(classes), temperature),
        border,
    )
    with nullcontext() if folder is None else claimed(folder.path):
        if folder is not None and not overwrite:
            folder.refuse_other_evaluation(data_name, split)
        restart = _restartable(scenes)
        names = _checked_names(restart())
        with nullcontext() if folder is None else replacing(folder.pictures, overwrite=overwrite) as place:
            files = None if place is None else SceneFiles(place, classes, names, pictures=pictures)
            for done, scene in enumerate(restart(), start=1):
                tally.count(predictor, scene, files)
                if progress is not None:
                    progress(done, len(names))
            if not tally.confusion.matrix.any():
                raise DataError("no scene has a labeled pixel; check the masks and the classes")
        evaluation = EvaluationRecord(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            data=data_name,
            split=split,
            leaking=leaking,
            truth=truth,
            model=ModelRecord(name=model_name, parameters=parameters),
            **tally.results(),
        )
        if folder is not None:
            folder.write_evaluation(evaluation, overwrite=overwrite)
    return evaluation


class _Tally:
    """Everything counted over the scenes of one evaluation."""

    def __init__(
        self,
        classes: ClassMap,
        comparison: Comparison | None,
        soft_answers: SoftAnswers | None,
        border: int | None,
    ) -> None:
        self.classes = classes
        self.comparison = comparison
        self.soft_answers = soft_answers
        self.border = border
        self.confusion = Confusion(len(classes))
        self.inner: list[NDArray[np.int64]] = []
        self.histograms = ProbabilityHistograms(len(classes))
        self.calibration = CalibrationHistogram(len(classes))
        self.areas = MappedAreas(len(classes))
        self.marginals: list[NDArray[np.int64]] = []
        self.images: list[ImageRecord] = []

    def count(self, predictor: AnyPredictor, scene: LabeledScene, files: SceneFiles | None) -> None:
        """Run the model on a scene, count its pixels, and keep its files."""
        try:
            prediction = _predicted(predictor, scene)
            confusion = Confusion(len(self.classes)).update(prediction.index, scene.target)
            self.histograms.update(prediction.probabilities, scene.target)
            self.calibration.update(prediction.probabilities, scene.target, prediction=prediction.index)
            if self.soft_answers is not None:
                self.soft_answers.update(prediction.probabilities, scene.target)
            index, valid = prediction.index, getattr(scene, "valid", None)
            if valid is not None:
                index = np.where(valid, index, np.uint8(IGNORE_INDEX))
            if self.comparison is not None:
                self.comparison.count(scene.name, index)
        except (DataError, ModelError) as error:
            raise type(error)(f"scene '{scene.name}': {error}") from error
        self.confusion.merge(confusion)
        self.areas.update(index, confusion.matrix)
        self.marginals.append(marginals(confusion.matrix))
        if self.border is not None:
            inner = without_borders(scene.target, self.border)
            self.inner.append(Confusion(len(self.classes)).update(index, inner).matrix)
        scores, pixels = confusion.scores(), int(confusion.matrix.sum())
        shown = None if files is None else files.keep(scene.name, scene.image, scene.target, index)
        self.images.append(
            ImageRecord(
                name=scene.name,
                mean_iou=scores.mean_iou,
                accuracy=scores.accuracy,
                pixels=pixels,
                counts=self.marginals[-1].tolist(),
                pictures=shown,
            )
        )

    def results(self) -> dict[str, Any]:
        """Return what the record of an evaluation says about the counted pixels."""
        classes, matrix = self.classes, self.confusion.matrix
        return {
            "classes": [
                ClassRecord(name=name, color=format_color(color))
                for name, color in zip(classes.names, classes.colors, strict=True)
            ],
            "images": len(self.images),
            "pixels": int(matrix.sum()),
            "scores": ScoresRecord(**self.confusion.scores().to_lists()),
            "confusion": matrix.tolist(),
            "interval": bootstrap_interval(self.marginals),
            "areas": self.areas.areas(),
            "calibration": self.calibration.calibration(),
            "curves": self.histograms.curves(classes.names),
            "pooled_curve": self.histograms.pooled_curve(),
            "soft_answers": self.soft_answers.record() if self.soft_answers else None,
            "per_image": self.images,
            "agreement": self.comparison.agreement() if self.comparison else None,
            "inner": self._inner(),
            "never_predicted": [classes.names[index] for index in self.confusion.never_predicted()],
        }

    def _inner(self) -> InnerRecord | None:
        matrix = sum(self.inner, np.zeros_like(self.confusion.matrix))
        if self.border is None or not matrix.any():
            return None
        return InnerRecord(
            border=self.border,
            pixels=int(matrix.sum()),
            scores=ScoresRecord(**scores_of(matrix).to_lists()),
            confusion=matrix.tolist(),
            interval=bootstrap_interval([marginals(each) for each in self.inner]),
        )


def _predicted(predictor: AnyPredictor, scene: LabeledScene) -> Prediction:
    if hasattr(predictor, "predict_array"):
        return predictor.predict_array(scene.image)
    return predictor.predict_scene(scene)


def _check_classes(predictor: AnyPredictor, classes: ClassMap) -> None:
    """Refuse a predictor that tells its classes when they are others, or in another order."""
    own = getattr(predictor, "classes", None)
    if own is not None and tuple(own.names) != classes.names:
        raise ModelError(
            f"the model predicts the classes {', '.join(own.names)}, but the data has {', '.join(classes.names)}; "
            "evaluate on data with the same classes in the same order"
        )


def _restartable(scenes: Scenes) -> Callable[[], Iterable[LabeledScene]]:
    if callable(scenes):
        return scenes
    held = list(scenes) if isinstance(scenes, Iterator) else scenes
    return lambda: held


def _checked_names(scenes: Iterable[LabeledScene]) -> list[str]:
    """Return the names of all scenes; refuse repeated ones and those that would leave the folder."""
    names: dict[str, None] = {}
    for scene in scenes:
        name = scene.name
        if name in names:
            raise DataError(f"two scenes are named '{name}'; give each its own name")
        if name in ("", ".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
            raise DataError(f"scene name {name!r} can't be a file name; leave out slashes and drives")
        names[name] = None
    if not names:
        raise DataError("there is no scene to evaluate; check the split")
    return list(names)
