"""Why distillation doesn't work: the doctor on a recipe, a run, or a teacher and images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from segshrink.config import Recipe, TeacherSource, Teaching, as_recipe, load_dataset, load_recipe
from segshrink.config.recipe import OWN_NETWORKS
from segshrink.data import Dataset
from segshrink.data.user_dataset import recipe_with_files
from segshrink.doctor import Diagnosis, diagnose_recipe
from segshrink.errors import ConfigError, UsageError
from segshrink.models.folder import functions_of
from segshrink.run_folder import RunFolder
from segshrink.teachers import is_data
from segshrink.training.hardware import use_free_threads
from segshrink.user_code import trusted_functions
from segshrink.workflows.progress import Progress, silent

_LOGGER = logging.getLogger(__name__)


def diagnose(
    recipe: Recipe | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    teacher: str | Path | Sequence[str | Path] = (),
    data: str | Path | None = None,
    student: str | Path | None = None,
    images: int | None = None,
    trust: bool = False,
    progress: Progress = silent,
) -> Diagnosis:
    """Measure teachers on the user's own validation images, and name what keeps a student from learning.

    Args:
        recipe: The recipe, or its file; None takes that of the student's run, or a recipe's defaults with ``data``.
        overrides: ``key=value`` texts that change the recipe, or that of the student's run.
        teacher: Sources of teachers; none takes the recipe's, or those of the student's run.
        data: Description of a data set instead of the recipe's.
        student: Run or model folder, or network id.
        images: Crops to look at; by default 32.
        trust: Whether the student's run, and teachers that it names, may run code of their own or ask the network.
        progress: Told how far it has come.

    Raises:
        UsageError: Nothing says which images to look at.
        ConfigError: There is no teacher, or the run names one that isn't trusted.
        FileError: A file is missing or unreadable.
    """
    run = None
    if student is not None and str(student) not in OWN_NETWORKS and RunFolder(student).config_file.exists():
        run = RunFolder(student)
    described = Path(data) if data is not None else None
    if isinstance(recipe, Recipe):
        loaded = as_recipe(recipe, overrides)
    elif recipe is not None or run is not None:
        loaded = load_recipe(run.config_file if recipe is None and run else Path(recipe or ""), overrides, described)
    elif overrides:
        raise UsageError(f"'{overrides[0]}' changes a recipe; give one, or a student's run, which knows its own")
    elif data is not None:
        loaded = Recipe(name="doctor", data=load_dataset(Path(data)))
    else:
        raise UsageError("nothing says which images to look at; give a RECIPE, or --data with --teacher")
    if recipe is not None or data is not None:  # code that a student's run names isn't called
        loaded = recipe_with_files(loaded)
    teachers = [str(teacher)] if isinstance(teacher, str | Path) else [str(source) for source in teacher]
    sources = _sources(loaded, teachers, run)
    named_by_user = bool(teachers) or (recipe is not None and bool(loaded.distillation.teachers))
    if run is not None and not named_by_user and not trust:
        _refuse_code(run, sources)
    functions = [] if student is None else [str(student)]
    if recipe is not None or trust:
        functions += loaded.functions
    if trust:
        functions += functions_of(*(source.source for source in sources))
        functions += functions_of(run.path) if run is not None and run.model.is_dir() else []
    use_free_threads()
    with trusted_functions(*functions):
        return diagnose_recipe(loaded, sources, student=student, images=images, progress=partial(progress, "doctor"))


def diagnose_briefly(recipe: Recipe, teaching: Teaching, dataset: Dataset) -> None:
    """Look at a few crops before a training and log a line for each finding; never raises."""
    logger = logging.getLogger("segshrink")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the teachers' own notices were read already
    try:
        findings = diagnose_recipe(recipe, teaching.teachers, dataset=dataset, brief=True).findings
    except Exception as error:  # a training may go well though its diagnosis doesn't
        findings, failure = (), " ".join(str(error).split())
    else:
        failure = ""
    finally:
        logger.setLevel(level)
    if failure:
        _LOGGER.warning("doctor: couldn't look (%s)", failure)
    for finding in findings:
        fix = f" → {'; '.join(finding.fix.splitlines())}" if finding.fix else ""
        severity = logging.INFO if finding.severity == "fine" else logging.WARNING
        _LOGGER.log(severity, "doctor: %s  %s%s", finding.severity, finding.message, fix)


def _sources(recipe: Recipe, teachers: Sequence[str], run: RunFolder | None) -> tuple[TeacherSource, ...]:
    """Return the teachers: those that were named, or the recipe's, or those that a run learned from."""
    listed = recipe.distillation.teachers
    if teachers:
        by_name = {source.source: source for source in listed}
        return tuple(by_name.get(name) or TeacherSource(source=name) for name in teachers)
    return tuple(listed) if listed or run is None else _learned_from(run)


def _learned_from(run: RunFolder) -> tuple[TeacherSource, ...]:
    """Return the teachers that a run learned from."""
    try:
        return tuple(map(TeacherSource.model_validate, run.run().teachers)) if run.has_run else ()
    except ValidationError as error:
        raise ConfigError(f"the run {run.path} names its teachers wrongly; name them with --teacher") from error


def _refuse_code(run: RunFolder, sources: Sequence[TeacherSource]) -> None:
    """Refuse teachers that only a run folder names, which anybody may have written, where they are more than data.

    Raises:
        ConfigError: Opening one would run code that it names, or ask the network.
    """
    theirs = [*run.recipe().distillation.teachers, *_learned_from(run)]
    for source in sources:
        if source in theirs and not is_data(source):
            raise ConfigError(
                f"the run {run.path} names the teacher '{source.source}', which would run code or ask the network; "
                "give --trust if you trust whoever wrote that folder, or name the teacher yourself with --teacher"
            )
