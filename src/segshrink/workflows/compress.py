"""From a teacher and images to the most accurate model within a budget."""

from __future__ import annotations

import logging
from pathlib import Path

from segshrink.compression.budget import Budget
from segshrink.compression.search import Outcome, Settings
from segshrink.compression.search import compress as search_models
from segshrink.compression.search.candidate_files import write_model_card
from segshrink.compression.search.results import check_place
from segshrink.compression.search.stages import SearchStages
from segshrink.config import Recipe, as_recipe, distillation_overrides
from segshrink.data.user_dataset import recipe_with_files
from segshrink.files import refuse_foreign, writing
from segshrink.folder_lock import claimed
from segshrink.report import report as write_report
from segshrink.run_folder import REPORT_FILES, WEB_PAGE, RunFolder
from segshrink.training.hardware import lightning_precision
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.training.terms import student_terms
from segshrink.user_code import trusted_functions
from segshrink.workflows.progress import Progress, silent, stages
from segshrink.workflows.unlabeled import with_judge
from segshrink.workflows.web_page import write_web_page

_LOGGER = logging.getLogger(__name__)


def compress(
    recipe: Recipe | str | Path,
    budget: Budget | str,
    *,
    out: str | Path,
    work: str | Path | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Find the most accurate small model within a budget, and report it beside its teacher.

    Args:
        recipe: Teacher, student, data and settings of the distillation, or the recipe's file.
        budget: The limits, or their text, such as "latency<=20ms,size<=1MB".
        out: Folder to write.
        work: Folder that keeps trainings and measurements, for several budgets to share; by default ``out/work``.
        settings: How to search.
        resume: Go on with the search in ``out``.
        progress: Told how far each stage has come.

    Raises:
        ConfigError: The recipe or the budget is wrong, or nothing meets the budget.
        FileError: ``out`` holds another search, or what this program didn't write.
    """
    out = Path(out)
    work = out / "work" if work is None else Path(work)
    recipe = recipe_with_files(as_recipe(recipe))
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if recipe.student is not None:
        # What is wrong is refused before anything is measured.
        student_terms(recipe.distillation, recipe.student.terms)
        lightning_precision(recipe.student.training.precision)
    quieten_lightning()
    if recipe.data.masks is None and recipe.distillation.teachers:
        with claimed(work):
            recipe, _ = with_judge(recipe, out=work, control=False, progress=progress)
    search = SearchStages(recipe, work.resolve(), settings or Settings(), stages(progress))
    with claimed(out), claimed(work), writing(out), trusted_functions(*recipe.functions):
        check_place(out)
        refuse_foreign(*(out / name for name in (*REPORT_FILES, WEB_PAGE)))
        outcome = search_models(search, budget, out=out, resume=resume)
        if outcome.chosen.run is not None:
            search.profile(outcome.chosen)
        write_model_card(outcome)
        if (exported := out / "model.onnx").is_file():
            write_web_page(exported, out / WEB_PAGE)
        if outcome.chosen.run is not None:
            write_report([Path(outcome.chosen.run), search.teacher_folder], out)
    return outcome


def with_trained_teacher(recipe: Recipe, run: Path) -> Recipe:
    """Return a recipe that would train a teacher with the one that a distillation in ``run`` trained for it.

    Data and networks must be the recipe's; for how long it was trained doesn't matter. Else the recipe stays as it is.
    """
    folder = RunFolder(run).own_teacher
    if recipe.teacher is None or recipe.distillation.teachers:
        return recipe
    if not folder.has_run or folder.run().status != "finished":
        return recipe
    earlier = folder.recipe()
    if earlier.teacher is None or earlier.teacher.models != recipe.teacher.models or earlier.data != recipe.data:
        return recipe
    _LOGGER.info("the teacher is %s, which distill trained", folder.path)
    return as_recipe(recipe, distillation_overrides(folder.path))
