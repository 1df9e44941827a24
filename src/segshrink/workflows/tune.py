"""Hyper-parameter search: an Optuna study of a recipe, with as many trials of its control."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from segshrink.config import Recipe, Space, as_recipe, load_open_recipe
from segshrink.config.loading import absolute_recipe
from segshrink.config.search_space import parse_open
from segshrink.data import Dataset, open_dataset
from segshrink.errors import ConfigError, FileError, TrainingError, UsageError
from segshrink.files import refuse_foreign, resolved, writing
from segshrink.folder_lock import claimed
from segshrink.machine import default_threads
from segshrink.run_folder import REPORT_FILES
from segshrink.signals import ending_on_signals
from segshrink.study_records import STUDY, StudyRecord, TuningRecord
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.training.run import Role
from segshrink.tuning.results import BEST, Results
from segshrink.tuning.space import grid, space_of
from segshrink.tuning.storage import JOURNAL, check_storage
from segshrink.tuning.study import Plan, RoleStudy, Settings, join, work
from segshrink.tuning.trial import Measurer
from segshrink.user_code import trusted_functions
from segshrink.workflows.distill import opened_quietly, prepare_teachers
from segshrink.workflows.progress import Progress, silent
from segshrink.workflows.unlabeled import with_judge

# Seconds between two looks at what the workers have done, and a worker's exit status after Ctrl-C.
_POLL, _INTERRUPTED = 2.0, 130


@dataclass(frozen=True)
class TuneResult:
    """What a hyper-parameter search found.

    Attributes:
        folder: The study's folder.
        studies: Its trials by role: "student" and "control", or "teacher".
        recipes: The recipe of the best trial of each role.
        report: The page.
        finished: Whether all trials have ended; if not, ``resume`` goes on.
    """

    folder: Path
    studies: dict[Role, StudyRecord]
    recipes: dict[Role, Path]
    report: Path
    finished: bool


def tune(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    space: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    storage: str | Path | None = None,
    workers: int = 1,
    control: bool = True,
    resume: bool = False,
    progress: Progress = silent,
) -> TuneResult:
    """Search the values of a recipe that make the best student, and as long those that make the best control.

    Args:
        recipe: The recipe, or its file, in which values may be open. One without a student tunes its teacher.
        out: Folder to write; trials are run folders inside it.
        space: Open values by place, such as ``{"student.training.learning_rate": {"log": [1e-4, 1e-2]}}``, beside those
            of the file; where nothing is open, the usual ones are.
        settings: How to search.
        storage: Journal file, or URL of a PostgreSQL or MySQL database, that all workers reach; by default a journal in
            ``out``.
        workers: Processes on this machine.
        control: Give the control, the same student without the teacher, as many trials.
        resume: Go on with the study, or join the workers that have it under way.
        progress: Told how far it has come.

    Raises:
        ConfigError: The recipe or an open value is wrong.
        FileError: ``out`` or the storage holds a study and ``resume`` is not given, or can't be used.
        TrainingError: Workers were lost, and trials are left.
    """
    out, settings = resolved(Path(out)), settings or Settings()
    opened: Space = {}
    if not isinstance(recipe, Recipe):
        recipe, opened = load_open_recipe(Path(recipe))
    opened |= {place: parse_open(value, place) for place, value in (space or {}).items()}
    recipe = absolute_recipe(as_recipe(recipe))
    refuse_foreign(*(out / name for name in (STUDY, *BEST.values(), *REPORT_FILES)))
    earlier = TuningRecord.read_if_present(out / STUDY)
    if workers < 1:
        raise UsageError(f"give at least one worker, found {workers}")
    roles: tuple[Role, ...] = ("student", "control") if control else ("student",)
    if recipe.student is None:
        roles = ("teacher",)
    for name in () if resume else (STUDY, JOURNAL, "teacher-run", "teacher", *roles):
        if (out / name).exists():
            raise FileError(f"{out / name} is there already; go on with it by --resume, or choose another folder")
    place = storage or out / JOURNAL
    check_storage(place, workers=workers)
    widths = len(settings.objectives) > 1
    spaces = {role: space_of(role, recipe, opened, widths=widths) for role in roles}
    if settings.sampler == "grid":
        list(map(grid, spaces.values()))
    quieten_lightning()
    recipe, dataset = with_judge(recipe, out=out, control=False, progress=progress)
    if recipe.student is not None:
        with claimed(out / "teacher"), writing(out), trusted_functions(*recipe.functions):
            teaching, _ = prepare_teachers(recipe, dataset, out=out, resume=True, progress=progress)
        recipe = recipe.model_copy(update={"distillation": teaching})
    plan = Plan(recipe, spaces, settings, str(place), out)
    if earlier is not None and earlier.name != plan.name:
        raise ConfigError(f"{out} holds the study of another recipe, space or objectives; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with trusted_functions(*plan.functions), join(plan, resume=resume) as studies:
        results = Results(plan, studies)
        results.write("running")
        finished = False
        try:
            if workers == 1:
                finished = _work(plan, dataset, studies, results.refresh, progress)
            else:
                finished = _work_together(plan, workers, studies, results.refresh, progress)
        finally:
            record, recipes = results.write("finished" if finished else "stopped")
    return TuneResult(out, {study.role: study for study in record.studies}, recipes, out / REPORT_FILES[0], finished)


def _work(
    plan: Plan, dataset: Dataset, studies: Sequence[RoleStudy], changed: Callable[[], None], show: Progress
) -> bool:
    """Run trials in this process; return whether all have ended."""
    measurer = Measurer(plan, dataset, lambda teaching: opened_quietly(teaching, dataset), changed, show)
    return work(studies, plan, measurer.measure, changed)


def _work_together(
    plan: Plan, workers: int, studies: Sequence[RoleStudy], changed: Callable[[], None], progress: Progress
) -> bool:
    """Run trials in several processes that share the cores; return whether all have ended.

    Raises:
        SegshrinkError: What a worker raised.
        TrainingError: Workers were lost, and trials are left.
    """
    context = get_context("spawn")
    errors = context.SimpleQueue()
    processes = [context.Process(target=_worker, args=(plan, errors)) for _ in range(workers)]
    with _environment(OMP_NUM_THREADS=str(max(1, default_threads() // workers))):
        for process in processes:
            process.start()
    total = sum(study.limit for study in studies)
    try:
        while any(process.is_alive() for process in processes) and errors.empty():
            time.sleep(_POLL)
            changed()
            done = sum(trial.state.is_finished() for study in studies for trial in study.trials())
            progress("trials", min(done, total), total)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    if not errors.empty():
        raise errors.get()
    if all(study.ended() for study in studies):
        return True
    if lost := [process for process in processes if process.exitcode]:
        raise TrainingError(f"{len(lost)} of {workers} workers were lost with trials left; go on with --resume")
    return False


def _worker(plan: Plan, errors: Any) -> None:
    """Join the studies of a plan from a process of its own; what goes wrong is told by ``errors``."""
    quieten_lightning()
    try:
        with ending_on_signals(), trusted_functions(*plan.functions), join(plan, resume=True) as studies:
            _work(plan, open_dataset(plan.recipe.data), studies, lambda: None, silent)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:  # the process that waits for it raises it again
        try:
            errors.put(error)
        except Exception:  # it can't be pickled
            errors.put(RuntimeError(f"{type(error).__name__}: {error}"))


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Let processes that the block starts see other variables."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
