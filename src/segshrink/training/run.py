"""A run: a recipe trained into a folder that can be resumed, evaluated, exported and reported from itself alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback, WeightAveraging
from lightning.pytorch.loggers import Logger

from segshrink.classes import ClassMap
from segshrink.config import Learner, Recipe, absolute_recipe
from segshrink.config.launch import Launch
from segshrink.data import CropModule, Dataset, SceneStore, open_dataset
from segshrink.errors import ConfigError, DataError, FileError, TrainingError
from segshrink.folder_lock import claimed
from segshrink.losses import WeightedTerm, build_terms
from segshrink.machine import describe_machine
from segshrink.models import SegmentationModel
from segshrink.models.memory_efficient_relu import use_memory_efficient_relu
from segshrink.run_folder import RunFolder
from segshrink.run_records import ImageCounts, MachineRecord, RunRecord
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
from segshrink.training.checkpoints import WholeCheckpointIO, read_whole_checkpoint
from segshrink.training.distiller import CACHED, Distiller
from segshrink.training.hardware import (
    ResourceUse,
    accelerator,
    device_name,
    free_threads,
    lightning_precision,
)
from segshrink.training.lightning_fit import fit
from segshrink.training.load_data import load_data
from segshrink.training.moving_average import moving_average
from segshrink.training.processes import Environment, Processes, Work, leading, together
from segshrink.training.resume import prepare_folder, threads_of
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
    """Train one network of a recipe into the run folder ``out``, in as many processes as its recipe says.

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
        callbacks: Further callbacks of Lightning, in this process.

    Raises:
        ConfigError: The recipe lacks what the role needs, or asks for more memory or devices than there are; the role
            doesn't learn from a teacher; the run learned from another one; torchrun or srun started other processes.
        DataError: No validation scene has a labeled pixel.
        FileError: The folder holds another run, is in use by another process, or can't be written.
        TrainingError: The loss became NaN or infinite; a data loading process, or one that trains beside this, died.
        KeyboardInterrupt: Ctrl-C. As after any error ``run.json`` says "stopped".
        Terminated: The same for SIGTERM and SIGHUP.
    """
    if role is None:
        role = "teacher" if teacher is None else "student"
    recipe = absolute_recipe(recipe)
    learner = _learner(recipe, role, taught=teacher is not None)
    launch = leading(learner.training, batch_size=recipe.crops.batch_size)
    if terms is None:
        taught = role == "student"
        terms = student_terms(recipe.distillation, learner.terms) if taught else build_terms(learner.terms)
    with claimed(Path(out)):
        training = _Training(recipe, role, learner, terms, RunFolder(out), progress, callbacks)
        return training.run(launch, teacher, dataset, resume=resume)


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
        self,
        launch: Launch,
        teacher: Teacher | Callable[[], Teacher] | None,
        dataset: Dataset | None,
        *,
        resume: bool,
    ) -> RunResult:
        """Train, or return the result of the run that the folder holds finished."""
        use = ResourceUse()
        opened = _opened(teacher)
        earlier = prepare_folder(self.folder, self.recipe, self.role, opened, resume=resume)
        if earlier is not None and earlier.status == "finished":
            return _finished(self.folder, earlier)
        training = self.learner.training
        threads = training.threads or threads_of(earlier) or max(1, free_threads() // training.devices)
        alike = replace(self, progress=None, callbacks=())
        work: Work = partial(alike.follow, teacher, dataset, threads=threads, resume=resume)
        with together(launch, training.processes, work, threads=threads) as processes:
            torch.set_num_threads(threads)
            trackers = build_trackers(self.recipe, self.folder.path, self.role)
            inherits = opened is not None and self.recipe.distillation.inherit_encoder
            data, model = processes.in_turn(partial(self._loaded, dataset, notice=not (resume or inherits)))
            record = self._record(data.dataset, opened)

            def write(**changes: Any) -> None:
                self.folder.write_run(record.model_copy(update={**use.record(earlier), **changes}))

            task = self._task(data, model, opened)
            del opened  # a cache may answer in its place
            metrics = MetricsFile(self.folder.metrics_file)
            # What a killed run took until its last whole epoch counts when it is resumed.
            each_epoch = LambdaCallback(on_train_epoch_end=lambda *_: write(status="running"))
            trainer = self._trainer(processes, [metrics, each_epoch], data.dataset.classes, trackers)
            try:
                write(status="running")
                fit(trainer, task, data, checkpoint=self.folder.last_checkpoint if resume else None)
                _save_kept(self.folder, model.with_resize(task.resize), keep=training.keep)
            except BaseException:
                with suppress(FileError):  # such as that of a full disk, which is what ended it
                    write(status="stopped")
                raise
        score = max(float(row[MEAN_IOU]) for row in metrics.rows if MEAN_IOU in row)
        result = RunResult(self.folder.path, score, trainer.global_step, float(metrics.rows[-1]["seconds"]))
        reached = {"steps": result.steps, "epochs": int(metrics.rows[-1]["epoch"]), "seconds": result.seconds}
        write(status="finished", **reached, best_mean_iou=score)
        self.folder.previous_checkpoint.unlink(missing_ok=True)
        return result

    def follow(
        self,
        teacher: Teacher | Callable[[], Teacher] | None,
        dataset: Dataset | None,
        processes: Processes,
        *,
        threads: int,
        resume: bool,
    ) -> None:
        """Train with the process that leads, and write nothing."""
        torch.set_num_threads(threads)
        opened = _opened(teacher)
        data, model = processes.in_turn(partial(self._loaded, dataset))
        task = self._task(data, model, opened)
        del opened  # a cache may answer in its place
        trainer = self._trainer(processes, [MetricsFile(self.folder.metrics_file)], data.dataset.classes, [])
        fit(trainer, task, data, checkpoint=self.folder.last_checkpoint if resume else None)

    def _loaded(self, dataset: Dataset | None, *, notice: bool = False) -> tuple[CropModule, SegmentationModel]:
        """Decode the images and build the network; with ``notice`` say where its weights are random."""
        dataset = dataset or open_dataset(self.recipe.data)
        data = load_data(self.recipe, self.role, self.learner, dataset, use_unlabeled=self._learns_unlabeled)
        lightning.seed_everything(self.recipe.seed, workers=False, verbose=False)
        model = build_for_data(self.learner.model, data)
        if notice:
            tell_random_start(self.learner.model)
        return data, model

    @property
    def _learns_unlabeled(self) -> bool:
        return self.role == "student" or self.learner.consistency is not None

    def _task(self, data: CropModule, model: SegmentationModel, teacher: Teacher | None) -> SegmentationTask:
        training, seed = self.learner.training, self.recipe.seed
        if teacher is not None:
            check_teacher_bands(teacher, data.dataset)
            check_teacher(teacher, self.terms, cached=bool(self.recipe.distillation.teacher_cache))
            if self.recipe.distillation.inherit_encoder:
                inherit_from(model, teacher)
            if not self.recipe.distillation.teacher_cache:
                teacher = for_crops(teacher, data.dataset.description.resize)
            teacher = in_precision(teacher, self.recipe.distillation.precision, data.dataset)
            if place := self.recipe.distillation.teacher_cache:
                stores = (data.train_store, data.unlabeled_store, data.val_crops_store)
                teacher = cached_answers(teacher, stores, place, self.progress)
                data.add_layer(CACHED, teacher.codes)  # which batches bring along from now on
        model.to(memory_format=torch.channels_last)
        use_memory_efficient_relu(model)
        if training.compile:
            model.compile()
        make = SegmentationTask if teacher is None else partial(Distiller, teacher=teacher)
        task = make(
            model,
            terms=self.terms,
            training=training,
            seed=seed,
            augmentation=self.recipe.augmentation,
            consistency=self.learner.consistency,
        )
        task.sample_names, task.resize = data.sample_names, data.dataset.description.resize
        return task

    def _trainer(
        self, processes: Processes, files: Sequence[Callback], classes: ClassMap, trackers: list[Logger]
    ) -> lightning.Trainer:
        training, checkpoints = self.learner.training, self.folder.checkpoints
        callbacks: list[Callback] = [*files, InterruptBetweenSteps()]
        if self.progress is not None:
            callbacks.append(StepProgress(self.progress))
        if trackers:
            callbacks.append(ScenePictures(classes))
        if training.ema_decay is not None:
            callbacks.append(WeightAveraging(multi_avg_fn=moving_average(training.ema_decay)))
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
            devices=training.devices,
            num_nodes=training.nodes,
            strategy=training.strategy if training.processes > 1 else "auto",
            sync_batchnorm=training.sync_batchnorm,
            callbacks=[*callbacks, *self.callbacks, last],
            check_val_every_n_epoch=training.epochs if training.keep == "last" else 1,
            gradient_clip_val=training.clip_norm,
            accumulate_grad_batches=training.accumulate,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[WholeCheckpointIO(), Environment(processes.launch)],
            logger=trackers,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _record(self, dataset: Dataset, teacher: Teacher | None) -> RunRecord:
        """Say what is trained on what; of a teacher its name, its sources as the recipe has them, and its identity."""
        precision, count = lightning_precision(self.learner.training.precision), self.learner.training.processes
        device = device_name() if count == 1 else f"{count} × {device_name()}"
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
            machine=MachineRecord(**describe_machine(), device=device, precision=precision),
            **taught,
        )


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


def _opened(teacher: Teacher | Callable[[], Teacher] | None) -> Teacher | None:
    return teacher if teacher is None or isinstance(teacher, Teacher) else teacher()


def _finished(folder: RunFolder, record: RunRecord) -> RunResult:
    if record.best_mean_iou is None or record.steps is None or record.seconds is None:
        raise DataError(f"the run in {folder.path} doesn't say how far it came; train into another folder")
    if not folder.model.is_dir():
        raise FileError(f"the run in {folder.path} is finished, but {folder.model} is gone; train into another folder")
    return RunResult(folder.path, record.best_mean_iou, record.steps, record.seconds)


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
