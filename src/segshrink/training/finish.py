"""What follows a training: the run's model measured on whole scenes and on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from segshrink.compression import profile_model
from segshrink.config import DatasetDescription, Recipe
from segshrink.data import SceneStore, open_dataset, scenes
from segshrink.errors import ConfigError, ModelError
from segshrink.evaluation import Evaluation, evaluate
from segshrink.files import read_json, write_json
from segshrink.models import SegmentationModel, count_parameters, load_model
from segshrink.prediction import Predictor
from segshrink.prediction.torch_backend import TorchBackend
from segshrink.training.run import open_run_recipe

ScenesDone = Callable[[int, int], None]


def finish(
    run: Path, *, reference: Path | None = None, profile: bool = True, progress: ScenesDone | None = None
) -> Evaluation:
    """Evaluate ``run/model`` on the validation split of the run's own recipe, and measure it on this machine.

    Writes ``evaluation.json`` and ``evaluation/``, and ``profile.json`` with ``profile``.

    Args:
        run: A finished run folder.
        reference: Evaluated run folder of the teacher, to measure agreement with.
        profile: Measure size, latency and memory too.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    recipe = open_run_recipe(run)
    model = load_model(run / "model")
    name = read_json(run / "run.json")["role"]
    result = evaluate_model(model, recipe.data, out=run, name=name, reference=reference, progress=progress)
    if profile:
        write_json(run / "profile.json", profile_model(run / "model"))
    return result


def describe_teacher(
    source: str | Path, recipe: Recipe, *, out: Path, profile: bool = True, progress: ScenesDone | None = None
) -> Evaluation:
    """Evaluate and measure the teacher of a distillation into ``out``, which the report reads like a run folder.

    Args:
        source: Run or model folder of the teacher.
        recipe: The student's recipe, whose validation split judges both.
        out: Folder to write to.
        profile: Measure size, latency and memory too.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    model = load_model(source)
    run = Path(source) / "run.json"
    record = read_json(run) if run.exists() else {"name": str(source), "data": recipe.data.name, "status": "finished"}
    write_json(out / "run.json", {**record, "role": "teacher"})
    if (metrics := Path(source) / "metrics.csv").exists():
        (out / "metrics.csv").write_bytes(metrics.read_bytes())
    result = evaluate_model(model, recipe.data, out=out, name="teacher", progress=progress)
    if profile:
        write_json(out / "profile.json", profile_model(model))
    return result


def evaluate_model(
    model: SegmentationModel,
    data: DatasetDescription,
    *,
    split: str = "val",
    out: Path | None = None,
    name: str = "model",
    precision: str = "32",
    reference: Path | None = None,
    progress: ScenesDone | None = None,
) -> Evaluation:
    """Score a model on every pixel of every scene of a split, with overlapping tiles at native resolution.

    Args:
        model: The model; its classes must be the data set's, in the same order.
        data: The data set.
        split: "train", "val" or "test".
        out: Where ``evaluation.json`` and pictures go; None writes nothing.
        name: How the evaluation names the model.
        precision: "32", "bf16" or "auto".
        reference: Evaluated run folder of the teacher, to measure agreement with.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        ModelError: The model's classes or bands differ from the data set's.
        ConfigError: The split is empty.
    """
    dataset = open_dataset(data)
    if model.description.classes.names != dataset.classes.names:
        raise ModelError(
            f"the model's classes ({', '.join(model.description.classes.names)}) are not those of data set "
            f"'{data.name}' ({', '.join(dataset.classes.names)}); name them alike and in the same order"
        )
    if model.description.bands != dataset.bands:
        raise ModelError(
            f"the model takes {model.description.bands} bands but the images of '{data.name}' have {dataset.bands}"
        )
    samples = getattr(dataset, split)
    if not samples:
        raise ConfigError(f"data set '{data.name}' has no images in its {split} split")
    store = SceneStore(samples, dataset.classes)
    return evaluate(
        Predictor(TorchBackend(model, precision=precision)),
        partial(scenes, store),
        classes=dataset.classes,
        split=split,
        data_name=data.name,
        leaking=data.split.leaking,
        model_name=name,
        parameters=count_parameters(model),
        out=out,
        reference=reference,
        progress=progress,
    )
