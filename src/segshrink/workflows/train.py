"""Supervised training of one network, or of a bank of teachers one after the other, measured and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from segshrink.config import Distillation, Recipe, absolute_recipe, as_recipe
from segshrink.data import Dataset, SceneStore, open_dataset
from segshrink.data.user_dataset import recipe_with_files
from segshrink.errors import ConfigError
from segshrink.evaluation_records import EvaluationRecord
from segshrink.files import writing
from segshrink.folder_lock import claimed
from segshrink.losses import WeightedTerm
from segshrink.report import report as write_report
from segshrink.run_folder import RunFolder
from segshrink.run_records import RunRecord
from segshrink.teachers import Teacher, open_bank
from segshrink.training.bank import bank_record, member_recipes
from segshrink.training.checkpoints import mend_checkpoint
from segshrink.training.evaluate_run import describe_teacher, evaluate_run, profile_runs
from segshrink.training.hardware import use_free_threads
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.training.run import Role, RunResult, cached_answers
from segshrink.training.run import train as train_network
from segshrink.user_code import trusted_functions
from segshrink.workflows.memory import fit_memory
from segshrink.workflows.progress import Progress, silent


@dataclass(frozen=True)
class TrainResult:
    """A trained network.

    Attributes:
        folder: Its run folder.
        mean_iou: On the validation split, whole scenes, 0 to 1.
        report: The page.
    """

    folder: Path
    mean_iou: float
    report: Path


def train(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    control: bool = False,
    resume: bool = False,
    memory: float | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train the recipe's teacher or bank, or its student without a teacher, on the labels; measure and report it.

    Args:
        recipe: The recipe, or its file.
        out: Run folder to write.
        control: Train the student instead of the teacher.
        resume: Go on with an interrupted run in ``out``.
        memory: Choose batches and crops that stay below so many bytes, see ``fit_memory``; None takes the recipe's. A
            run that is resumed keeps its own.
        progress: Told how far each stage has come.

    Raises:
        ConfigError: The recipe lacks what is to be trained.
        FileError: ``out`` is in use, or holds another run or what this program didn't write.
        TrainingError: The loss became NaN or infinite, or nothing fits into the memory.
    """
    out, recipe = Path(out), recipe_with_files(as_recipe(recipe))
    folder = RunFolder(out)
    role: Role = "control" if control else "teacher"
    with claimed(out), trusted_functions(*recipe.functions):
        if memory is not None:
            recipe = _fitted(recipe, folder, role, memory, resume=resume, progress=progress)
        dataset = open_dataset(recipe.data)
        runs = [out]
        if control:
            train_role(recipe, out=out, role="control", dataset=dataset, resume=resume, progress=progress)
        else:
            train_teacher(recipe, out=out, dataset=dataset, resume=resume, progress=progress)
        if folder.has_bank:
            if not folder.has_evaluation:
                score_teacher(open_bank(out), recipe.distillation, dataset, out=out, progress=progress)
            runs += folder.members
        else:
            measure_run(out, dataset, progress=progress)
            time_runs([out], progress=progress)
        report = write_report(runs)
    return TrainResult(out, folder.evaluation().scores.mean_iou, report)


def _fitted(recipe: Recipe, folder: RunFolder, role: Role, limit: float, *, resume: bool, progress: Progress) -> Recipe:
    """Fit a recipe into a limit of memory, as it was when the run in a folder began."""
    if resume and folder.has_run:
        earlier = folder.recipe()
        return recipe.model_copy(update={name: getattr(earlier, name) for name in ("crops", "teacher", "student")})
    quieten_lightning()
    return fit_memory(recipe, role=role, limit_mb=limit / 1e6, progress=progress)


def train_role(
    recipe: Recipe,
    *,
    out: Path,
    role: Role,
    dataset: Dataset,
    teacher: Callable[[], Teacher] | None = None,
    terms: Sequence[WeightedTerm] | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> RunResult:
    """Train one role of a recipe on its data set; with ``resume`` a finished run is left as it is."""
    quieten_lightning()
    if resume:
        mend_checkpoint(RunFolder(out))
    with writing(out):
        return train_network(
            recipe,
            out=out,
            role=role,
            teacher=teacher,
            dataset=dataset,
            terms=terms,
            resume=resume,
            progress=partial(progress, f"train {role}"),
        )


def train_teacher(recipe: Recipe, *, out: Path, dataset: Dataset, resume: bool, progress: Progress) -> None:
    """Train a recipe's teacher in ``out``, or the members of its bank, which are measured as well.

    With ``resume`` what is done already is kept.

    Raises:
        ConfigError: There are more folds than groups of training images, or ``out`` holds a bank of another recipe.
        FileError: ``out`` holds a bank and ``resume`` isn't given, or what this program didn't write.
        TrainingError: A loss became NaN or infinite.
    """
    if recipe.teacher is None or not recipe.teacher.is_bank:
        train_role(recipe, out=out, role="teacher", dataset=dataset, resume=resume, progress=progress)
        return
    folder, recipe = RunFolder(out), absolute_recipe(recipe)
    record, members = bank_record(recipe, dataset), member_recipes(recipe, dataset)
    with claimed(out):
        _begin_bank(folder, recipe, resume=resume)
        for number, member in enumerate(members):
            run, data = folder.member(number).path, open_dataset(member.data)
            told = partial(_told, progress, f"teacher {number + 1} of {len(members)}")
            train_role(member, out=run, role="teacher", dataset=data, resume=resume, progress=told)
            measure_run(run, data, progress=told)
        with writing(out):
            folder.write_bank(record)
            folder.write_run(folder.run().model_copy(update={"status": "finished"}))


def score_teacher(
    teacher: Teacher,
    teaching: Distillation,
    dataset: Dataset,
    *,
    out: Path,
    temperature: float | None = None,
    progress: Progress,
) -> None:
    """Evaluate a teacher into ``out``, from the answers that teach, too, where they are cached."""
    told, answers = partial(progress, "evaluate teacher"), None
    if (place := teaching.teacher_cache) and teaching.precision == "auto":
        answers = cached_answers(teacher, [SceneStore(dataset.val, dataset.classes)], place, told)
    describe_teacher(teacher, dataset, out=out, answers=answers, temperature=temperature, progress=told)


def _begin_bank(folder: RunFolder, recipe: Recipe, *, resume: bool) -> None:
    """Write what a bank's folder says from the beginning, or see that this is the bank in it."""
    folder.refuse_foreign()
    if not folder.has_run:
        folder.write_recipe(recipe)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        folder.write_run(RunRecord(role="teacher", name=recipe.name, data=recipe.data.name, created=created))
        return
    if not resume:
        folder.refuse_begun()
    earlier = folder.recipe()
    if (earlier.teacher, earlier.data, earlier.seed) != (recipe.teacher, recipe.data, recipe.seed):
        raise ConfigError(f"{folder.path} holds a bank of another recipe ({folder.config_file}); choose another folder")


def _told(progress: Progress, which: str, stage: str, done: float, total: float, note: str = "", /) -> None:
    progress(f"{stage} ({which})", done, total, note)


def measure_run(
    run: Path, dataset: Dataset, *, reference: Path | None = None, progress: Progress = silent
) -> EvaluationRecord | None:
    """Evaluate a finished run on its data set; None where that was done before."""
    folder = RunFolder(run)
    if folder.has_evaluation:
        return None
    use_free_threads()
    with writing(run):
        return evaluate_run(
            run, dataset, reference=reference, progress=partial(progress, f"evaluate {folder.run().role}")
        )


def time_runs(
    runs: Sequence[Path], *, teacher: Callable[[], Teacher] | None = None, progress: Progress = silent
) -> None:
    """Measure finished runs, and the teacher whose folder stands in the first of them, in turns.

    Args:
        runs: Their folders, the student's first.
        teacher: Opens the teacher; None: there is none.
        progress: Told how far it has come.
    """
    described = runs[0] / "teacher" if teacher else None
    with writing(runs[0]):
        profile_runs(runs, teacher=teacher, described=described, progress=partial(progress, "measure speed"))
