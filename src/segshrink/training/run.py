"""A run: a recipe trained into a folder that can be resumed, evaluated, exported and reported from itself alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.config import Learner, Recipe, absolute_recipe
from segshrink.data import CropModule, Dataset, SceneStore, absent_classes, open_dataset
from segshrink.errors import ConfigError, DataError, FileError, TrainingError
from segshrink.folder_lock import claimed
from segshrink.losses import WeightedTerm, build_terms
from segshrink.machine import LARGEST_THREADS, describe_machine
from segshrink.models import SegmentationModel
from segshrink.models.memory_efficient_relu import use_memory_efficient_relu
from segshrink.run_folder import RunFolder
from segshrink.run_records import ImageCounts, MachineRecord, RunRecord
from segshrink.signals import Terminated
from segshrink.teachers import Teacher, TeacherCache
from segshrink.teachers.low_precision import in_precision
from segshrink.teachers.torch_teacher import for_crops
from segshrink.training.build_student import build_for_data, check_teacher_bands, inherit_from, tell_random_start
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
from segshrink.training.checkpoints import WholeCheckpointIO, mend_checkpoint, read_whole_checkpoint
from segshrink.training.consistency import recolored
from segshrink.training.distiller import CACHED, Distiller
from segshrink.training.hardware import (
    ResourceUse,
    accelerator,
    check_memory,
    device_name,
    free_threads,
    lightning_precision,
)
from segshrink.training.lightning_fit import fit
from segshrink.training.task import SegmentationTask
from segshrink.training.terms import check_teacher, student_terms
from segshrink.training.trackers import ScenePictures, build_trackers

Role = Literal["teacher", "student", "control"]


@dataclass(frozen=True)
class RunResult:
    """What a finished run reached: its folder, its model's validation mIoU in [0, 1], steps and seconds trained."""

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
    dataset: Dataset | None = None,
    terms: Sequence[WeightedTerm] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
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
        dataset: The recipe's data set, where it is open already.
        terms: The recipe's terms for this role, where they are built already.
        resume: Go on from the last whole epoch, with the threads that the run began with; the weights at the end equal
            those of an uninterrupted run.
        progress: Called after every step with (steps done, steps in all, a short text).
        callbacks: Further callbacks of Lightning.

    Raises:
        ConfigError: The recipe lacks what the role needs, or asks for more memory than there is; the role doesn't learn
            from a teacher; the run learned from another one.
        DataError: No validation scene has a labeled pixel.
        FileError: The folder holds another run, is in use by another process, or can't be written.
        TrainingError: The loss became NaN or infinite; a data loading process died.
        KeyboardInterrupt: Ctrl-C. ``run.json`` says "stopped".
        Terminated: The same for SIGTERM and SIGHUP.
    """
    if role is None:
        role = "teacher" if teacher is None else "student"
    recipe = absolute_recipe(recipe)
    learner = _learner(recipe, role, taught=teacher is not None)
    if terms is None:
        taught = role == "student"
        terms = student_terms(recipe.distillation, learner.terms) if taught else build_terms(learner.terms)
    with claimed(Path(out)):
        training = _Training(recipe, role, learner, terms, RunFolder(out), progress, callbacks)
        return training.run(teacher, dataset, resume=resume)


@dataclass(frozen=True)
class _Training:
    """One network on its way to a finished run.

    Attributes:
        recipe: With absolute paths.
        role: Which of its networks.
        learner: The recipe's section of it.
        terms: What it learns by.
        folder: The run folder.
        progress: As in ``train``.
        callbacks: As in ``train``.
    """

    recipe: Recipe
    role: Role
    learner: Learner
    terms: Sequence[WeightedTerm]
    folder: RunFolder
    progress: Progress | None
    callbacks: Sequence[Callback]

    def run(
        self, teacher: Teacher | Callable[[], Teacher] | None, dataset: Dataset | None, *, resume: bool
    ) -> RunResult:
        """Train, or return the result of the run that the folder holds finished."""
        use = ResourceUse()
        if teacher is not None and not isinstance(teacher, Teacher):
            teacher = teacher()
        earlier = _prepare_folder(self.folder, self.recipe, self.role, teacher, resume)
        if earlier is not None and earlier.status == "finished":
            return _finished(self.folder, earlier)
        threads = self.learner.training.threads or _threads_of(earlier) or free_threads()
        torch.set_num_threads(threads)
        data = self._opened(dataset or open_dataset(self.recipe.data))
        lightning.seed_everything(self.recipe.seed, workers=False, verbose=False)
        model, resize = build_for_data(self.learner.model, data), data.dataset.description.resize
        inherits = teacher is not None and self.recipe.distillation.inherit_encoder
        if not resume and not inherits:
            tell_random_start(self.learner.model)
        record = self._record(data.dataset, teacher)
        if teacher is not None:
            check_teacher_bands(teacher, data.dataset)
            check_teacher(teacher, self.terms, cached=bool(self.recipe.distillation.teacher_cache))
            if inherits:
                inherit_from(model, teacher)
            if not self.recipe.distillation.teacher_cache:
                teacher = for_crops(teacher, resize)
            teacher = in_precision(teacher, self.recipe.distillation.precision, data.dataset)
            if place := self.recipe.distillation.teacher_cache:
                stores = (data.train_store, data.unlabeled_store, data.val_crops_store)
                teacher = cached_answers(teacher, stores, place, self.progress)
                data.add_layer(CACHED, teacher.codes)  # which batches bring along from now on
        task = self._task(model, teacher)
        task.sample_names, task.resize = data.sample_names, resize

        def write(**changes: Any) -> None:
            self.folder.write_run(record.model_copy(update={**use.record(earlier), **changes}))

        metrics = MetricsFile(self.folder.metrics_file)
        trainer = self._trainer(metrics, data.dataset.classes)
        try:
            write(status="running")
            fit(trainer, task, data, checkpoint=self.folder.last_checkpoint if resume else None)
            _save_kept(self.folder, model.with_resize(resize), keep=self.learner.training.keep)
        except (KeyboardInterrupt, Terminated):
            write(status="stopped")
            raise
        score = max(float(row[MEAN_IOU]) for row in metrics.rows if MEAN_IOU in row)
        result = RunResult(self.folder.path, score, trainer.global_step, float(metrics.rows[-1]["seconds"]))
        reached = {"steps": result.steps, "epochs": trainer.current_epoch, "seconds": result.seconds}
        write(status="finished", **reached, best_mean_iou=score)
        self.folder.previous_checkpoint.unlink(missing_ok=True)
        return result

    @property
    def _learns_unlabeled(self) -> bool:
        return self.role == "student" or self.learner.consistency is not None

    def _opened(self, dataset: Dataset) -> CropModule:
        """Decode the images, and look whether they can teach and judge."""
        recipe = self.recipe
        check_memory(recipe.crops, bands=dataset.bands, classes=len(dataset.classes))
        if self.role != "student" and not dataset.labeled:
            name, remedy = dataset.description.name, "give some, or distill from a teacher that is there"
            raise DataError(f"no training image of '{name}' has a mask, and a {self.role} learns from masks; {remedy}")
        if self.learner.consistency is not None and not dataset.unlabeled:
            raise ConfigError(
                f"'consistency' learns from unlabeled images, but '{dataset.description.name}' has none; name some "
                "under data.unlabeled, or leave it out"
            )
        data = CropModule(
            dataset,
            crops=recipe.crops,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            use_unlabeled=self._learns_unlabeled,
            recolored=None if self.learner.consistency is None else recolored(self.learner.consistency),
        )
        data.setup("fit")
        masks = (data.val_store.mask(number) for number in range(len(data.val_store)))
        if all((mask == IGNORE_INDEX).all() for mask in masks):
            raise DataError(
                f"none of the {len(data.val_store)} validation scenes of '{dataset.description.name}' has a labeled "
                "pixel, so nothing can judge a training; check the val split and what the masks 'ignore'"
            )
        if absent := ", ".join(absent_classes(data.train_store, allowed=recipe.data.allow_absent)):
            _LOGGER.warning(
                "no training mask holds %s, so it isn't learned; correct its color or value, or write "
                "allow_absent: [%s]",
                absent,
                absent,
            )
        return data

    def _task(self, model: SegmentationModel, teacher: Teacher | None) -> SegmentationTask:
        training, seed = self.learner.training, self.recipe.seed
        model.to(memory_format=torch.channels_last)
        use_memory_efficient_relu(model)
        if training.compile:
            model.compile()
        make = SegmentationTask if teacher is None else partial(Distiller, teacher=teacher)
        return make(
            model,
            terms=self.terms,
            training=training,
            seed=seed,
            augmentation=self.recipe.augmentation,
            consistency=self.learner.consistency,
        )

    def _trainer(self, metrics: MetricsFile, classes: ClassMap) -> lightning.Trainer:
        trackers = build_trackers(self.recipe, self.folder.path, self.role)
        training, checkpoints = self.learner.training, self.folder.checkpoints
        callbacks: list[Callback] = [metrics, InterruptBetweenSteps()]
        if self.progress is not None:
            callbacks.append(StepProgress(self.progress))
        if trackers:
            callbacks.append(ScenePictures(classes))
        if training.ema_decay is not None:
            callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
        if training.patience is not None:
            callbacks.append(Patience(training.patience))
        if training.keep == "best":
            callbacks.append(BestCheckpoint(checkpoints))
        last = Checkpoints(
            checkpoints, "last", save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False
        )
        return lightning.Trainer(
            max_epochs=training.epochs,
            precision=lightning_precision(training.precision),
            accelerator=accelerator(),
            devices=1,
            callbacks=[*callbacks, *self.callbacks, last],
            check_val_every_n_epoch=training.epochs if training.keep == "last" else 1,
            gradient_clip_val=training.clip_norm,
            accumulate_grad_batches=training.accumulate,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[WholeCheckpointIO()],
            logger=trackers,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _record(self, dataset: Dataset, teacher: Teacher | None) -> RunRecord:
        """Say what is trained on what; of a teacher its name, its sources as the recipe has them, and its identity."""
        precision = lightning_precision(self.learner.training.precision)
        taught: dict[str, Any] = {}
        if teacher is not None:
            listed = self.recipe.distillation.teachers
            sources = [source.model_dump(mode="json", exclude_defaults=True) for source in listed]
            taught = {
                "teacher": teacher.name,
                "teachers": sources or [{"source": teacher.name}],
                "teacher_identity": teacher.identity,
            }
        return RunRecord(
            role=self.role,
            name=self.recipe.name,
            data=self.recipe.data.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=self.recipe.seed,
            images=ImageCounts(
                labeled=len(dataset.train) if dataset.labeled else 0,
                unlabeled=len(dataset.unlabeled if dataset.labeled else dataset.train) if self._learns_unlabeled else 0,
                val=len(dataset.val),
            ),
            judged_by=self.recipe.data.truth,
            machine=MachineRecord(**describe_machine(), device=device_name(), precision=precision),
            **taught,
        )


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
    if taught and recipe.augmentation.mixup and recipe.distillation.teacher_cache:
        raise ConfigError(
            "augmentation.mixup blends images, about which a cached teacher says nothing; set "
            "distillation.teacher_cache=false, or take augmentation.cutmix, which mixes cached answers, too"
        )
    if role == "student" and not taught:
        raise ConfigError("a student needs a teacher; give --teacher or train a control")
    lightning_precision(learner.training.precision)
    return learner


def _prepare_folder(
    folder: RunFolder, recipe: Recipe, role: Role, teacher: Teacher | None, resume: bool
) -> RunRecord | None:
    """Create the folder, or return the record of the run that it already holds."""
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
        mend_checkpoint(folder)
    return record


def _finished(folder: RunFolder, record: RunRecord) -> RunResult:
    if record.best_mean_iou is None or record.steps is None or record.seconds is None:
        raise DataError(f"the run in {folder.path} doesn't say how far it came; train into another folder")
    return RunResult(folder.path, record.best_mean_iou, record.steps, record.seconds)


def _threads_of(record: RunRecord | None) -> int | None:
    """Return the threads that a run began with; other numbers of them add up to other weights."""
    threads = record.machine.threads if record else None
    return threads if threads and 0 < threads <= LARGEST_THREADS else None


def cached_answers(
    teacher: Teacher, stores: Sequence[SceneStore], place: Path | bool, progress: Progress | None
) -> TeacherCache:
    """Return the teacher's answers about all scenes of some stores; ``place`` is a folder, or true for the stores'."""
    folder = place if isinstance(place, Path) else None
    return TeacherCache(teacher.to(accelerator()), stores, folder=folder, progress=progress)


def _save_kept(folder: RunFolder, model: SegmentationModel, *, keep: Literal["best", "last"]) -> None:
    """Write ``model/`` from the best or the last checkpoint; weights in it are averaged where the training does so."""
    path = folder.best_checkpoint if keep == "best" else folder.last_checkpoint
    if not path.exists():
        raise TrainingError(f"{path} is missing; train into another folder")
    state = read_whole_checkpoint(path)["state_dict"]
    prefix = "model."
    model.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    model.save(folder.model)
