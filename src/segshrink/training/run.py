"""A run: a recipe trained into a folder that can be resumed, evaluated, exported and reported from itself alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Learner, Recipe, absolute_recipe
from segshrink.data import CropModule, Dataset, absent_classes, image_statistics, open_dataset
from segshrink.errors import ConfigError, DataError, FileError, ModelError, TrainingError
from segshrink.folder_lock import claimed
from segshrink.losses import build_terms
from segshrink.machine import describe_machine
from segshrink.models import SegmentationModel, inherit_encoder
from segshrink.models.memory_efficient_relu import use_memory_efficient_relu
from segshrink.models.weights import read_checkpoint
from segshrink.run_folder import RunFolder
from segshrink.run_records import ImageCounts, MachineRecord, RunRecord
from segshrink.signals import Terminated
from segshrink.teachers import Teacher, TeacherCache
from segshrink.teachers.low_precision import in_precision
from segshrink.training.build_student import build_chosen, check_teacher_bands, tell_random_start
from segshrink.training.callbacks import (
    MEAN_IOU,
    BestCheckpoint,
    Checkpoints,
    InterruptBetweenSteps,
    MetricsFile,
    Patience,
    Progress,
    StepProgress,
)
from segshrink.training.checkpoints import WholeCheckpointIO, check_checkpoint
from segshrink.training.distiller import CACHED, Distiller
from segshrink.training.hardware import (
    LARGEST_THREADS,
    accelerator,
    check_memory,
    device_name,
    free_threads,
    lightning_precision,
)
from segshrink.training.lightning_fit import fit
from segshrink.training.task import SegmentationTask
from segshrink.training.terms import student_terms

Role = Literal["teacher", "student", "control"]


@dataclass(frozen=True)
class RunResult:
    """What a finished run reached: its folder, the best validation mIoU in [0, 1], steps and seconds trained."""

    folder: Path
    mean_iou: float
    steps: int
    seconds: float


_LOGGER = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    *,
    out: Path,
    role: Role | None = None,
    teacher: Teacher | Callable[[], Teacher] | None = None,
    teacher_name: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Train one network of a recipe into the run folder ``out``.

    Args:
        recipe: What to train on what.
        out: Run folder; must not hold another run unless ``resume``.
        role: "teacher" trains the recipe's teacher on the labels; "student" the recipe's student on labels and
            teacher; "control" the same student with the same seed and steps without the teacher. None: "student" where
            a teacher is given, else "teacher".
        teacher: What the student learns from, or a function that opens it; then nobody holds the teacher while a
            student learns from its cached answers.
        teacher_name: How the run names its teacher; None: as the teacher does.
        resume: Go on from the last whole epoch, with the threads that the run began with; the weights at the end equal
            those of an uninterrupted run.
        progress: Called after every step with (steps done, steps in all, a short text).

    Raises:
        ConfigError: The recipe lacks what the role needs, or asks for more memory than there is; the role doesn't learn
            from a teacher; the run learned from another one.
        DataError: No validation scene has a labelled pixel.
        FileError: The folder holds another run, is in use by another process, or can't be written.
        TrainingError: The loss became NaN or infinite; a data loading process died.
        KeyboardInterrupt: Ctrl-C. ``run.json`` says "stopped".
        Terminated: The same for SIGTERM and SIGHUP.
    """
    if role is None:
        role = "teacher" if teacher is None else "student"
    recipe = absolute_recipe(recipe)
    learner = _learner(recipe, role, taught=teacher is not None or teacher_name is not None)
    if role == "student" and teacher is None:
        raise ConfigError("a student needs a teacher; give --teacher or train a control")
    with claimed(Path(out)):
        return _train(recipe, learner, RunFolder(out), role, teacher, teacher_name, resume, progress)


def _train(
    recipe: Recipe,
    learner: Learner,
    folder: RunFolder,
    role: Role,
    teacher: Teacher | Callable[[], Teacher] | None,
    teacher_name: str | None,
    resume: bool,
    progress: Progress | None,
) -> RunResult:
    if teacher is not None and not isinstance(teacher, Teacher):
        teacher = teacher()
    if (finished := _prepare_folder(folder, recipe, role, teacher, resume)) is not None:
        return finished
    taught = _taught(recipe, teacher, teacher_name)
    training = learner.training
    torch.set_num_threads(training.threads or _threads_before(folder) or free_threads())
    dataset = open_dataset(recipe.data)
    check_memory(recipe.crops, bands=dataset.bands, classes=len(dataset.classes))
    data = CropModule(
        dataset,
        crops=recipe.crops,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        use_unlabeled=role == "student",
    )
    data.setup("fit")
    _check_labels(data)
    if absent := absent_classes(data.train_store, allowed=recipe.data.allow_absent):
        _LOGGER.warning(
            "no training mask holds %s, so it isn't learned; correct its color or value, or write allow_absent: [%s]",
            ", ".join(absent),
            ", ".join(absent),
        )
    lightning.seed_everything(recipe.seed, workers=False, verbose=False)
    model = _build(learner, dataset, data)
    if role == "student" and teacher is not None:
        check_teacher_bands(teacher, dataset)
        student_terms(recipe.distillation, learner.terms, teacher)  # what it can't serve is refused before it answers
        if recipe.distillation.inherit_encoder:
            _inherit(model, teacher)
    if not resume and not (role == "student" and recipe.distillation.inherit_encoder):
        tell_random_start(learner.model)
    if role == "student" and teacher is not None:
        teacher = in_precision(teacher, recipe.distillation.precision, dataset)
        if recipe.distillation.teacher_cache:
            teacher = _cached(teacher, data, recipe.distillation.teacher_cache, progress)
    task = _task(recipe, learner, model, role, teacher)
    task.sample_names = data.sample_names
    metrics = MetricsFile(folder.metrics_file)
    trainer = _trainer(
        learner, folder, [metrics, InterruptBetweenSteps(), *([StepProgress(progress)] if progress else [])]
    )
    record = _record(recipe, role, dataset, str(trainer.precision), taught)
    try:
        folder.write_run(record)
        fit(trainer, task, data, checkpoint=folder.last_checkpoint if resume else None)
        _save_best(folder, model)
    except (KeyboardInterrupt, Terminated):
        folder.write_run(record.model_copy(update={"status": "stopped"}))
        raise
    score = max(float(row[MEAN_IOU]) for row in metrics.rows if MEAN_IOU in row)
    reached = {"steps": trainer.global_step, "epochs": trainer.current_epoch, "seconds": metrics.rows[-1]["seconds"]}
    folder.write_run(record.model_copy(update={"status": "finished", **reached, "best_mean_iou": score}))
    return RunResult(folder.path, score, trainer.global_step, float(metrics.rows[-1]["seconds"]))


def check_same_teacher(run: Path, teacher: Teacher) -> None:
    """Refuse to go on with a run that learned from another teacher.

    Raises:
        ConfigError: It did.
    """
    folder = RunFolder(run)
    if not folder.has_run:
        return
    record = folder.run()
    if record.teacher_identity in (None, teacher.identity):
        return
    same = record.teacher == teacher.name
    other = "whose weights or settings have changed since" if same else f"not from {teacher.name}"
    raise ConfigError(f"the run in {run} learns from {record.teacher}, {other}; choose another folder")


def _learner(recipe: Recipe, role: Role, *, taught: bool) -> Learner:
    learner = recipe.teacher if role == "teacher" else recipe.student
    if learner is None:
        raise ConfigError(f"recipe '{recipe.name}' has no '{'teacher' if role == 'teacher' else 'student'}' section")
    if role != "student" and taught:
        raise ConfigError(f"a {role} learns from the labels alone; leave the teacher out, or train the role 'student'")
    lightning_precision(learner.training.precision)
    return learner


def _prepare_folder(
    folder: RunFolder, recipe: Recipe, role: Role, teacher: Teacher | None, resume: bool
) -> RunResult | None:
    """Create the folder, or return the result of the run that it already holds finished."""
    folder.refuse_foreign()
    if not folder.has_run:
        folder.write_recipe(recipe)
        return None
    if not resume:
        raise FileError(f"{folder.path} already holds a run; add --resume to go on with it, or choose another folder")
    record = folder.run()
    if folder.recipe() != recipe or record.role != role:
        raise ConfigError(f"{folder.path} holds a run of another recipe ({folder.config_file}); choose another folder")
    if teacher is not None:
        check_same_teacher(folder.path, teacher)
    if record.status != "finished":
        check_checkpoint(folder.last_checkpoint)
        return None
    if record.best_mean_iou is None or record.steps is None or record.seconds is None:
        raise DataError(f"the run in {folder.path} doesn't say how far it came; train into another folder")
    return RunResult(folder.path, record.best_mean_iou, record.steps, record.seconds)


def _threads_before(folder: RunFolder) -> int | None:
    """Return the threads that a run began with; other numbers of them add up to other weights."""
    threads = folder.run().machine.threads if folder.has_run else None
    return threads if threads and 0 < threads <= LARGEST_THREADS else None


def _check_labels(data: CropModule) -> None:
    """Refuse validation scenes that can't judge."""
    masks = (data.val_store.mask(number) for number in range(len(data.val_store)))
    if all((mask == IGNORE_INDEX).all() for mask in masks):
        raise DataError(
            f"none of the {len(data.val_store)} validation scenes of '{data.dataset.description.name}' has a labelled "
            "pixel, so nothing can judge a training; check the val split and what the masks 'ignore'"
        )


def _build(learner: Learner, dataset: Dataset, data: CropModule) -> SegmentationModel:
    model = build_chosen(learner.model, dataset, lambda: image_statistics(data.train_store))
    model.description = replace(
        model.description,
        dtype=dataset.dtype,
        band_names=dataset.band_names or model.description.band_names,
        scaling=dataset.scaling or model.description.scaling,
        resolution=dataset.resolution or model.description.resolution,
    )
    return model


def _inherit(student: SegmentationModel, teacher: Teacher) -> None:
    """Start the student's encoder from the teacher's."""
    if teacher.module is None:
        raise ConfigError(
            f"distillation.inherit_encoder needs a teacher whose weights can be read, and {teacher.name} is a black "
            "box; set it to false"
        )
    try:
        inherit_encoder(student.network, teacher.module)
    except ModelError as error:
        raise ConfigError(f"distillation.inherit_encoder: {error}; or set it to false") from error


def _cached(teacher: Teacher, data: CropModule, place: Path | bool, progress: Progress | None) -> TeacherCache:
    """Return the teacher's answers about all scenes, which batches bring along from now on; ``place`` is a folder."""
    stores = (data.train_store, data.unlabeled_store, data.val_store)
    folder = place if isinstance(place, Path) else None
    cache = TeacherCache(teacher.to(accelerator()), stores, folder=folder, progress=progress)
    data.add_layer(CACHED, cache.codes)
    return cache


def _task(
    recipe: Recipe, learner: Learner, model: SegmentationModel, role: Role, teacher: Teacher | None
) -> SegmentationTask:
    model.to(memory_format=torch.channels_last)
    use_memory_efficient_relu(model)
    if learner.training.compile:
        model.compile()
    if role == "student" and teacher is not None:
        terms = student_terms(recipe.distillation, learner.terms, teacher)
        return Distiller(model, teacher, terms, training=learner.training, seed=recipe.seed)
    return SegmentationTask(model, build_terms(learner.terms), training=learner.training, seed=recipe.seed)


def _trainer(learner: Learner, folder: RunFolder, callbacks: list[Callback]) -> lightning.Trainer:
    training = learner.training
    best = BestCheckpoint(folder.checkpoints)
    last = Checkpoints(
        folder.checkpoints, "last", save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False
    )
    if training.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    if training.patience is not None:
        callbacks.append(Patience(training.patience))
    return lightning.Trainer(
        max_epochs=training.epochs,
        precision=lightning_precision(training.precision),
        accelerator=accelerator(),
        devices=1,
        callbacks=[*callbacks, best, last],
        gradient_clip_val=training.clip_norm,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[WholeCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _save_best(folder: RunFolder, model: SegmentationModel) -> None:
    """Write ``model/`` from the best checkpoint."""
    path = folder.best_checkpoint
    if not path.exists():
        raise TrainingError(f"{path} is missing; train into another folder")
    state = read_checkpoint(path)["state_dict"]
    prefix = "model."
    model.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    model.save(folder.model)


def _taught(recipe: Recipe, teacher: Teacher | None, name: str | None) -> dict[str, Any]:
    """Say what a student learns from: a name for people, the sources as the recipe has them, and an exact identity."""
    if teacher is None:
        return {}
    named = name or teacher.name
    sources = [source.model_dump(mode="json", exclude_defaults=True) for source in recipe.distillation.teachers]
    return {"teacher": named, "teachers": sources or [{"source": named}], "teacher_identity": teacher.identity}


def _record(recipe: Recipe, role: Role, dataset: Dataset, precision: str, taught: dict[str, Any]) -> RunRecord:
    return RunRecord(
        role=role,
        name=recipe.name,
        data=recipe.data.name,
        status="running",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=recipe.seed,
        images=ImageCounts(
            labeled=len(dataset.train),
            unlabeled=len(dataset.unlabeled) if role == "student" else 0,
            val=len(dataset.val),
        ),
        machine=MachineRecord(**describe_machine(), device=device_name(), precision=precision),
        **taught,
    )
