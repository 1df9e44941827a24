"""What follows a training: the run's model scored on whole scenes, and timed on this machine beside its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from segshrink.config import DatasetDescription, Recipe
from segshrink.data import Dataset, SceneStore, open_dataset, refuse_other_bands, scenes
from segshrink.errors import ConfigError, ModelError
from segshrink.evaluation import ArrayPredictor, Evaluation, ScenePredictor, evaluate
from segshrink.files import write_json
from segshrink.machine import default_threads
from segshrink.models import SegmentationModel, count_parameters, load_model
from segshrink.prediction import Predictor
from segshrink.prediction.torch_backend import TorchBackend
from segshrink.profiling.measuring import Progress
from segshrink.profiling.profile import ForeignModel, Source, profile_models
from segshrink.records import Section
from segshrink.teachers import Teacher
from segshrink.teachers.evaluation_adapter import TeacherPredictor
from segshrink.teachers.teacher import Answers
from segshrink.training.run import open_run_recipe, refuse_foreign_run, run_role

PROFILE = "profile.json"
ScenesDone = Callable[[int, int], None]


def finish(run: Path, *, reference: Path | None = None, progress: ScenesDone | None = None) -> Evaluation:
    """Evaluate ``run/model`` on the validation split of the run's own recipe.

    Writes ``evaluation.json`` and ``evaluation/``.

    Args:
        run: A finished run folder.
        reference: Evaluated run folder of the teacher, to measure agreement with.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    recipe = open_run_recipe(run)
    model = load_model(run / "model")
    name = run_role(run)
    return evaluate_model(model, recipe.data, out=run, name=name, reference=reference, progress=progress)


def profile_runs(
    runs: Sequence[Path],
    *,
    teacher: Callable[[], Teacher] | None = None,
    described: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Measure the models of runs, and their teacher's, in turns on this machine: ``profile.json`` in each folder.

    Nothing is measured where this was done before, all in one go and on a quiet machine. A teacher that is a black box
    has no profile: it runs on threads of its own.

    Args:
        runs: Finished run folders, the student's first.
        teacher: Opens their teacher.
        described: Folder that the teacher was evaluated into.
        progress: Called with (steps done, steps in all, what is being measured).
    """
    folders = [*([described] if described else []), *runs]
    if all((run / PROFILE).exists() for run in runs) and _timed_together(folders):
        return
    sources: dict[Path, Source] = {run: run / "model" for run in runs}
    if teacher is not None and described is not None:
        source = _teacher_source(teacher(), bands=load_model(runs[0]).description.bands)
        if source is not None:
            sources[described] = source
    names = {folder: run_role(folder) for folder in sources}
    profiles = profile_models({names[folder]: source for folder, source in sources.items()}, progress=progress)
    for folder, name in names.items():
        write_json(folder / PROFILE, profiles[name])


def _timed_together(folders: Sequence[Path]) -> bool:
    """Whether the profiles of folders, where they have one, were measured in turns on a quiet machine."""
    profiles = [profile for folder in folders if (profile := Section.read(folder / PROFILE))]
    sessions = {profile.path("session") for profile in profiles}
    loads = [profile.section("load") for profile in profiles]
    if len(sessions) != 1 or None in sessions or any(load is None or load.flag("busy") for load in loads):
        return False
    # A teacher that was evaluated anew has lost the profile that it once had.
    return (folders[0] / PROFILE).exists() or "teacher" not in profiles[0].texts("turns")


def describe_teacher(teacher: Teacher, recipe: Recipe, *, out: Path, progress: ScenesDone | None = None) -> Evaluation:
    """Evaluate the teacher of a distillation into ``out``, which the report reads like a run folder.

    ``evaluation.json`` is written last.

    Args:
        teacher: The teacher, whatever it is.
        recipe: The student's recipe, whose validation split judges both.
        out: Folder to write to.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    refuse_foreign_run(out)
    run = Path(teacher.name) / "run.json"
    found = Section.read(run)
    record = found.values if found else {"name": teacher.name, "data": recipe.data.name, "status": "finished"}
    write_json(out / "run.json", {**record, "role": "teacher", "identity": teacher.identity}, overwrite=False)
    for name in ("metrics.csv", PROFILE, "evaluation.json"):
        (out / name).unlink(missing_ok=True)
    if (metrics := run.with_name("metrics.csv")).exists():
        (out / "metrics.csv").write_bytes(metrics.read_bytes())
    dataset = open_dataset(recipe.data)
    return _evaluate(
        TeacherPredictor(teacher),
        dataset,
        "val",
        model_name="teacher",
        parameters=teacher.parameters,
        out=out,
        progress=progress,
    )


def _teacher_source(teacher: Teacher, *, bands: int) -> Source | None:
    """Return what can be measured of a teacher: models of ours, other networks of torch, no black box."""
    if isinstance(teacher.module, SegmentationModel):
        return teacher.module
    if teacher.parameters is None:
        return None
    backend = TorchBackend(
        Answers(teacher), precision="32", threads=default_threads(), classes=teacher.classes, bands=bands
    )
    return ForeignModel(backend, teacher.parameters)


def evaluate_model(
    model: SegmentationModel,
    data: DatasetDescription,
    *,
    split: str = "val",
    out: Path | None = None,
    name: str = "model",
    precision: str = "32",
    reference: Path | None = None,
    overwrite: bool = False,
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
        overwrite: Replace an evaluation of another split as well, and files that this program did not write.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        ModelError: The model's classes or bands differ from the data set's.
        ConfigError: The split is empty.
    """
    dataset = open_dataset(data, model=model.description)
    if model.description.classes.names != dataset.classes.names:
        raise ModelError(
            f"the model's classes ({', '.join(model.description.classes.names)}) are not those of data set "
            f"'{data.name}' ({', '.join(dataset.classes.names)}); name them alike and in the same order"
        )
    refuse_other_bands(model.description, dataset)
    return _evaluate(
        Predictor(TorchBackend(model, precision=precision)),
        dataset,
        split,
        model_name=name,
        parameters=count_parameters(model),
        out=out,
        reference=reference,
        overwrite=overwrite,
        progress=progress,
    )


def _evaluate(
    predictor: ArrayPredictor | ScenePredictor,
    dataset: Dataset,
    split: str,
    *,
    model_name: str,
    parameters: int | None,
    out: Path | None,
    reference: Path | None = None,
    overwrite: bool = False,
    progress: ScenesDone | None = None,
) -> Evaluation:
    """Score a predictor on a split of a data set."""
    data = dataset.description
    samples = getattr(dataset, split)
    if not samples:
        raise ConfigError(f"data set '{data.name}' has no images in its {split} split")
    return evaluate(
        predictor,
        partial(scenes, SceneStore(samples, dataset.classes)),
        classes=dataset.classes,
        split=split,
        data_name=data.name,
        leaking=data.split.leaking,
        model_name=model_name,
        parameters=parameters,
        out=out,
        reference=reference,
        overwrite=overwrite,
        progress=progress,
    )
