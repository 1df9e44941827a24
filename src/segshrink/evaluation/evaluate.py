"""The one way from a model and a data set to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from segshrink.classes import ClassMap
from segshrink.config import DatasetDescription, load_dataset
from segshrink.data import (
    Dataset,
    SceneStore,
    open_dataset,
    refuse_other_bands,
    refuse_other_classes,
    scenes,
    with_files,
)
from segshrink.errors import ConfigError, FileError, UsageError, nearest
from segshrink.evaluation.score_scenes import AnyPredictor, Average, score_scenes
from segshrink.evaluation_records import EvaluationRecord
from segshrink.model_file import ModelFile
from segshrink.prediction import Backend, Predictor
from segshrink.run_folder import RunFolder

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel

    Model: TypeAlias = SegmentationModel | Backend | AnyPredictor | str | Path

SPLITS = ("train", "val", "test")


def evaluate(
    model: Model | Sequence[Model],
    data: Dataset | DatasetDescription | str | Path | None = None,
    split: str = "val",
    *,
    out: Path | None = None,
    pictures: int = 60,
    name: str | None = None,
    runtime: str | None = None,
    precision: str = "32",
    threads: int | None = None,
    reference: Path | None = None,
    temperature: float | None = None,
    border: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationRecord:
    """Score a model on every labeled pixel of every scene of a split, with overlapping tiles at native resolution.

    Args:
        model: A run folder, model folder, Keras, ONNX, OpenVINO or TFLite file, a ``SegmentationModel``, a backend, or
            anything that segments an array as ``Predictor`` does; several are judged by the mean of their
            probabilities. A file of anybody tells the data set's classes apart where nothing beside it names others.
        data: An opened data set, a description, or a description's file; a run folder knows its own.
        split: "train", "val" or "test".
        out: Run folder that gets ``evaluation.json`` and ``evaluation/``; None writes nothing.
        pictures: Largest number of scenes shown as pictures.
        name: How the evaluation names the model; by default as its file or folder.
        runtime: As in ``open_backend``.
        precision: "32", "bf16" or "auto".
        threads: As in ``open_backend``.
        reference: Evaluated run folder of the teacher, to measure agreement with.
        temperature: Of a teacher: tell what its answers say about the classes at this temperature.
        border: Score the pixels further than this many pixels from label borders, too.
        overwrite: Replace an evaluation of another split as well, and files that this program did not write.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        UsageError: The split is unknown, ``border`` isn't positive, or there is no data set.
        ConfigError: The split is empty, or the description is wrong.
        ModelError: The model can't be opened, or its classes or bands differ from the data set's.
        DataError: Images and masks contradict the description, or no pixel is labeled.
        FileError: A file is missing, or ``out`` holds something else.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'{nearest(split, SPLITS)}")
    if border is not None and border < 1:
        raise UsageError(f"border is a width in pixels, at least 1, found {border}")
    models = list(model) if isinstance(model, Sequence) and not isinstance(model, str) else [model]
    if not models:
        raise UsageError("there is no model to evaluate; give at least one")
    if out is not None and isinstance(models[0], str | Path) and not overwrite:
        _refuse_other_run(Path(models[0]), Path(out))
    given = data if isinstance(data, Dataset) else _described(data, models[0])
    classes = given.classes if isinstance(given, Dataset) else given.class_map()
    opened = [
        _opened(source, runtime=runtime, precision=precision, threads=threads, classes=classes) for source in models
    ]
    predictors = [predictor for predictor, _ in opened]
    of_parts = [part.backend.description if isinstance(part, Predictor) else None for part in predictors]
    descriptions = [description for description in of_parts if description is not None]
    dataset = given if isinstance(given, Dataset) else open_dataset(given, model=next(iter(descriptions), None))
    for each in descriptions:
        refuse_other_classes(each, dataset)
        refuse_other_bands(each, dataset)
    samples = getattr(dataset, split)
    if not samples:
        raise ConfigError(
            f"data set '{dataset.description.name}' has no images in its {split} split; name some under 'split', or "
            "choose another split"
        )
    return score_scenes(
        predictors[0] if len(predictors) == 1 else Average(predictors),
        partial(scenes, SceneStore(samples, dataset.classes)),
        classes=dataset.classes,
        split=split,
        data_name=dataset.description.name,
        leaking=dataset.leaking,
        truth=dataset.description.truth,
        model_name=name or _named(models),
        parameters=None if any(count is None for _, count in opened) else sum(count or 0 for _, count in opened),
        out=out,
        pictures=pictures,
        reference=reference,
        temperature=temperature,
        border=border,
        overwrite=overwrite,
        progress=progress,
    )


def described_data(model: str | Path, data: str | Path | None = None) -> DatasetDescription:
    """Return the data set that is named, or else the one that a run folder was trained on.

    Raises:
        UsageError: There is neither.
    """
    if data is not None:
        return with_files(load_dataset(Path(data)))
    folder = RunFolder(model)
    if not folder.config_file.exists():
        raise UsageError(f"{model} is no run folder that knows its data set; give one with --data")
    return folder.recipe().data


def _refuse_other_run(model: Path, out: Path) -> None:
    """Refuse to put a model's scores into the run folder of another."""
    folder = RunFolder(out)
    own = model.resolve() in (out.resolve(), folder.model.resolve())
    if not own and folder.has_run:
        raise FileError(
            f"{out} is the run folder of another model than {model}, whose scores are not replaced; choose another "
            "folder, or allow it with --overwrite"
        )


def _described(data: DatasetDescription | str | Path | None, model: object) -> DatasetDescription:
    if isinstance(data, DatasetDescription):
        return data
    if data is None and not isinstance(model, str | Path):
        raise UsageError("a model in memory doesn't know its data set; give one")
    return described_data(model if isinstance(model, str | Path) else "", data)


def _named(models: Sequence[object]) -> str:
    if len(models) > 1:
        return "average"
    return Path(models[0]).name if isinstance(models[0], str | Path) else "model"


def _opened(
    model: Model,
    *,
    runtime: str | None,
    precision: str,
    threads: int | None,
    classes: ClassMap,
) -> tuple[AnyPredictor, int | None]:
    """Return what segments scenes, and how many parameters it has; None where it can't tell."""
    if hasattr(model, "predict_array") or hasattr(model, "predict_scene"):
        return cast("AnyPredictor", model), getattr(model, "parameters", None)
    if isinstance(model, str | Path) and runtime is None and (file := ModelFile.find(model)).is_torch:
        from segshrink.models import load_model

        model = load_model(file.path)
    source = cast("SegmentationModel | Backend | str | Path", model)
    predictor = Predictor(source, runtime=runtime, precision=precision, threads=threads, classes=classes)
    weights = getattr(model, "parameters", None)
    return predictor, None if weights is None else sum(weight.numel() for weight in weights())
