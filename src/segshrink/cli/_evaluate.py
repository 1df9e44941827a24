"""Evaluation of whatever the user names: a run folder, a model folder or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from segshrink.config import DatasetDescription, load_dataset, load_recipe
from segshrink.errors import ConfigError, FileError, UsageError
from segshrink.evaluation import Evaluation


def described_data(model: Path, data: Path | None) -> DatasetDescription:
    """Return the data set that was given, or else the one that a run folder was trained on.

    Raises:
        ConfigError: Neither is there.
    """
    if data is not None:
        return load_dataset(data)
    if not (model / "config.yaml").exists():
        raise UsageError(f"{model} is no run folder that knows its data set; give one with --data")
    return load_recipe(model / "config.yaml").data


def evaluate_source(
    source: Path,
    data: DatasetDescription,
    *,
    split: str,
    out: Path | None,
    overwrite: bool = False,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Score a model on a split of a data set.

    Args:
        source: Run folder, model folder or exported file (``.onnx``, ``.xml``, ``.tflite``).
        data: The data set.
        split: "train", "val" or "test".
        out: Folder for ``evaluation.json`` and pictures; None writes nothing.
        overwrite: Replace what another evaluation or somebody else wrote there.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        FileError: ``out`` is the run folder of another model.
    """
    own = out is not None and source.resolve() in (out.resolve(), (out / "model").resolve())
    if out is not None and not own and not overwrite and (out / "run.json").exists():
        raise FileError(
            f"{out} is the run folder of another model than {source}, whose scores are not replaced; choose another "
            "folder, or allow it with --overwrite"
        )
    if source.suffix.lower() in (".onnx", ".xml", ".tflite"):
        return _evaluate_file(source, data, split=split, out=out, overwrite=overwrite, progress=progress)
    from segshrink.cli._work import use_free_threads
    from segshrink.models import load_model
    from segshrink.training import evaluate_model

    use_free_threads()
    return evaluate_model(
        load_model(source), data, split=split, out=out, name=source.name, overwrite=overwrite, progress=progress
    )


def _evaluate_file(
    source: Path,
    data: DatasetDescription,
    *,
    split: str,
    out: Path | None,
    overwrite: bool = False,
    progress: Callable[[int, int], None],
) -> Evaluation:
    from segshrink.data import SceneStore, open_dataset, scenes
    from segshrink.evaluation import evaluate
    from segshrink.prediction import Predictor

    predictor = Predictor(source, precision="32")
    dataset = open_dataset(data, model=predictor.backend.description)
    samples = getattr(dataset, split)
    if not samples:
        raise ConfigError(f"data set '{data.name}' has no images in its {split} split; choose another split")
    return evaluate(
        predictor,
        partial(scenes, SceneStore(samples, dataset.classes)),
        classes=dataset.classes,
        split=split,
        data_name=data.name,
        leaking=data.split.leaking,
        model_name=source.name,
        parameters=None,
        out=out,
        overwrite=overwrite,
        progress=progress,
    )
