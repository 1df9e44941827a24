"""Scores of a predictor over whole scenes at native resolution, with pictures and stored predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap, format_color
from segshrink.errors import DataError, ModelError
from segshrink.evaluation.agreement import agreement_of, read_prediction, reference_name
from segshrink.evaluation.calibration import CalibrationHistogram
from segshrink.evaluation.confusion import Confusion, marginals
from segshrink.evaluation.curves import ProbabilityHistograms
from segshrink.evaluation.intervals import interval_of_marginals
from segshrink.evaluation.pictures import evenly_spaced, write_pictures
from segshrink.files import replacing
from segshrink.folder_lock import claimed
from segshrink.formatting import printable
from segshrink.imagery import write_index_png
from segshrink.prediction import Prediction
from segshrink.run_folder import RunFolder
from segshrink.run_records import (
    AgreementRecord,
    ClassRecord,
    EvaluationRecord,
    ImageRecord,
    ModelRecord,
    PicturesRecord,
    ScoresRecord,
)


class ArrayPredictor(Protocol):
    """``segshrink.prediction.Predictor``, or anything that segments an array as it does."""

    def predict_array(self, image: NDArray[Any], /) -> Prediction:
        """Segment (H, W, bands) raw pixel values into classes (H, W) and probabilities (C, H, W)."""


class LabeledScene(Protocol):
    """What it is evaluated on: ``segshrink.data.Scene``."""

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
    """What segments a scene that it may know by name: ``segshrink.teachers.evaluation_adapter.TeacherPredictor``."""

    def predict_scene(self, scene: LabeledScene, /) -> Prediction:
        """Segment a scene into classes (H, W) and probabilities (C, H, W); its target is none of its business."""


AnyPredictor = ArrayPredictor | ScenePredictor
Scenes = Iterable[LabeledScene] | Callable[[], Iterable[LabeledScene]]
Reference = AnyPredictor | str | Path


def score_scenes(
    predictor: AnyPredictor,
    scenes: Scenes,
    *,
    classes: ClassMap,
    split: str,
    data_name: str,
    leaking: bool,
    model_name: str,
    parameters: int | None,
    out: Path | None,
    pictures: int = 60,
    reference: Reference | None = None,
    reference_label: str = "reference",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> EvaluationRecord:
    """Score a model on every labelled pixel of every scene, once, at native resolution.

    Args:
        predictor: Segments a whole scene; tiling and blending are its own.
        scenes: Iterated twice (names first): a sequence, an iterable that can start again, or a function that gives a
            fresh iterator. A bare iterator is held in memory.
        classes: The classes of the truth and of the predictor.
        split: Name of the split, such as "val".
        data_name: Name of the data set.
        leaking: Whether parts of one scene stand on both sides of the split.
        model_name: Name of the model.
        parameters: Number of its parameters; None when unknown.
        out: Run folder that gets ``evaluation.json``, ``evaluation/`` with pictures, and the prediction of every scene
            in ``evaluation/predictions/NAME.png``; an earlier evaluation of the same split is replaced as a whole.
            None writes nothing.
        pictures: Largest number of scenes shown as pictures.
        reference: Model to measure agreement with: a run folder evaluated on the same scenes, or a predictor, which
            is then run on every scene.
        reference_label: Name of the reference when it is a predictor; a run folder brings its own.
        overwrite: Replace an evaluation of another split as well, and files that this program did not write.
        progress: Called after each scene with the number done and of all.
        seed: Seed of the bootstrap.

    Returns:
        The scores, as in ``evaluation.json``.

    Raises:
        DataError: No scene, no labelled pixel, a repeated or unusable name, or a scene that contradicts the classes.
        ModelError: The predictor's classes aren't ``classes``, or it can't take the scenes.
        FileError: ``out`` can't be written or holds something else, or the reference holds no prediction of a scene.
    """
    _check_classes(predictor, classes)
    tally = _Tally(classes, _comparison(reference, classes, reference_label))
    with nullcontext() if out is None else claimed(Path(out)):
        if out is not None and not overwrite:
            RunFolder(out).refuse_other_evaluation(data_name, split)
        _count_into(
            tally, predictor, scenes, out=out, pictures=pictures, overwrite=overwrite, progress=progress or _silent
        )
        total = tally.total
        evaluation = EvaluationRecord(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            data=data_name,
            split=split,
            leaking=leaking,
            model=ModelRecord(name=model_name, parameters=parameters),
            classes=[
                ClassRecord(name=name, color=format_color(color))
                for name, color in zip(classes.names, classes.colors, strict=True)
            ],
            images=len(tally.results),
            pixels=int(total.matrix.sum()),
            scores=ScoresRecord(**total.scores().to_lists()),
            confusion=total.matrix.tolist(),
            interval=interval_of_marginals(tally.marginals, seed=seed),
            calibration=tally.calibration.calibration(),
            curves=tally.histograms.curves(classes.names),
            per_image=tally.results,
            agreement=tally.comparison.agreement() if tally.comparison else None,
            never_predicted=[classes.names[position] for position in total.never_predicted()],
        )
        if out is not None:
            RunFolder(out).write_evaluation(evaluation, overwrite=overwrite)
    return evaluation


def _count_into(
    tally: _Tally,
    predictor: AnyPredictor,
    scenes: Scenes,
    *,
    out: Path | None,
    pictures: int,
    overwrite: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Run the model over all scenes; replace ``out/evaluation`` when that went well."""
    restart = _restartable(scenes)
    names = _checked_names(restart())
    if out is None:
        tally.count_all(predictor, restart(), total=len(names), progress=progress)
        return
    with replacing(RunFolder(out).pictures, overwrite=overwrite) as folder:
        store = _Store(folder, tally.classes, evenly_spaced(names, limit=pictures))
        tally.count_all(predictor, restart(), total=len(names), progress=progress, store=store)


class _Tally:
    """Everything counted over the scenes of one evaluation."""

    def __init__(self, classes: ClassMap, comparison: _Comparison | None) -> None:
        self.classes = classes
        self.comparison = comparison
        self.total = Confusion(len(classes))
        self.histograms = ProbabilityHistograms(len(classes))
        self.calibration = CalibrationHistogram(len(classes))
        self.marginals: list[NDArray[np.int64]] = []
        self.results: list[ImageRecord] = []

    def count_all(
        self,
        predictor: AnyPredictor,
        scenes: Iterable[LabeledScene],
        *,
        total: int,
        progress: Callable[[int, int], None],
        store: _Store | None = None,
    ) -> None:
        for done, scene in enumerate(scenes, start=1):
            try:
                index, confusion = self._count(predictor, scene)
            except (DataError, ModelError) as error:
                raise type(error)(f"scene '{scene.name}': {error}") from error
            pictures = None if store is None else store.keep(scene, index)
            scores = confusion.scores()
            self.results.append(
                ImageRecord(
                    name=scene.name,
                    mean_iou=scores.mean_iou,
                    accuracy=scores.accuracy,
                    pixels=int(confusion.matrix.sum()),
                    pictures=pictures,
                )
            )
            progress(done, total)
        if not self.total.matrix.any():
            raise DataError("no scene has a labelled pixel; check the masks and the classes")

    def _count(self, predictor: AnyPredictor, scene: LabeledScene) -> tuple[NDArray[np.uint8], Confusion]:
        prediction = _predicted(predictor, scene)
        confusion = Confusion(len(self.classes)).update(prediction.index, scene.target)
        self.marginals.append(marginals(confusion.matrix))
        self.total.merge(confusion)
        self.histograms.update(prediction.probabilities, scene.target)
        self.calibration.update(prediction.probabilities, scene.target, prediction=prediction.index)
        if self.comparison is not None:
            self.comparison.count(scene, prediction.index)
        return prediction.index, confusion


class _Store:
    """The folder that keeps the prediction of every scene and pictures of some."""

    def __init__(self, folder: Path, classes: ClassMap, shown: frozenset[str]) -> None:
        self.folder = folder
        self.classes = classes
        self.shown = shown
        (folder / "predictions").mkdir(parents=True)

    def keep(self, scene: LabeledScene, index: NDArray[np.uint8]) -> PicturesRecord | None:
        """Write the files of one scene; return its pictures as paths relative to the run folder."""
        write_index_png(self.folder / "predictions" / f"{scene.name}.png", index, self.classes)
        if scene.name not in self.shown:
            return None
        files = write_pictures(
            self.folder, scene.name, image=scene.image, truth=scene.target, prediction=index, classes=self.classes
        )
        return PicturesRecord(**{kind: f"evaluation/{file}" for kind, file in files.items()})


class _Comparison:
    """Counts where a reference predicts the same."""

    def __init__(self, label: str, index_of: Callable[[LabeledScene], NDArray[np.uint8]], num_classes: int) -> None:
        self.label = label
        self.index_of = index_of
        self.confusion = Confusion(num_classes)
        self.images = 0

    def count(self, scene: LabeledScene, index: NDArray[np.uint8]) -> None:
        try:
            self.confusion.update(index, self.index_of(scene))
        except DataError as error:
            raise DataError(f"can't compare with the prediction of {self.label}: {error}") from error
        self.images += 1

    def agreement(self) -> AgreementRecord:
        return agreement_of(self.confusion, self.label, images=self.images)


def _comparison(reference: Reference | None, classes: ClassMap, label: str) -> _Comparison | None:
    if reference is None:
        return None
    if not isinstance(reference, str | Path):
        _check_classes(reference, classes)
        return _Comparison(label, lambda scene: _predicted(reference, scene).index, len(classes))
    run = RunFolder(reference)
    names = run.evaluation().class_names
    if names != tuple(map(printable, classes.names)):
        raise DataError(
            f"{run.path} was evaluated on the classes {', '.join(names)}, this evaluation has "
            f"{', '.join(classes.names)}; evaluate both on one data set"
        )
    count = len(classes)
    return _Comparison(reference_name(run), lambda scene: read_prediction(run, scene.name, num_classes=count), count)


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


def _silent(done: int, total: int) -> None:
    """Report nothing."""
