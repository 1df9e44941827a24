"""A search for a budget on the console: its progress bars, and what it found."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from segshrink.cli._console import out_console, progress_bar, tell
from segshrink.cli._errors import writing
from segshrink.cli._work import quieten_lightning
from segshrink.compression.budget import Budget, show
from segshrink.compression.search import Outcome, Settings, compress
from segshrink.compression.search.model_card import describe_chosen
from segshrink.compression.search.results import PAGE, check_place, load_notice, to_dict
from segshrink.compression.search.stages import Workshop
from segshrink.config import Recipe
from segshrink.files import claimed, refuse_foreign
from segshrink.formatting import percent
from segshrink.report import build_report
from segshrink.report.page import REPORT_FILES
from segshrink.training.hardware import lightning_precision
from segshrink.training.terms import student_terms


def run_search(recipe: Recipe, budget: Budget, *, out: Path, work: Path, settings: Settings, resume: bool) -> Outcome:
    """Search under progress bars, and report the chosen run beside its teacher.

    Args:
        recipe: Teacher, student, data and settings of the distillation.
        budget: The limits.
        out: Folder to write.
        work: Folder that keeps trainings and measurements.
        settings: How to search.
        resume: Go on with the search in ``out``.
    """
    if recipe.student is not None:
        # What is wrong is refused before anything is measured.
        student_terms(recipe.distillation, recipe.student.terms)
        lightning_precision(recipe.student.training.precision)
    quieten_lightning()
    tools = Workshop(recipe, work.resolve(), settings, progress_bar)
    with claimed(out), claimed(work), writing(out):
        check_place(out)
        refuse_foreign(*(out / name for name in REPORT_FILES))
        outcome = compress(recipe, budget, out=out, tools=tools, settings=settings, resume=resume, show=progress_bar)
        if outcome.chosen.run is not None:
            tools.profile(outcome.chosen)
        describe_chosen(outcome)
        if outcome.chosen.run is not None:
            build_report([Path(outcome.chosen.run), tools.teacher_folder], out)
    return outcome


def print_outcome(outcome: Outcome) -> None:
    """Print every file that was scored, what became of the other candidates, and the choice."""
    content = to_dict(outcome.found)
    files = Table(title_justify="left")
    for place, heading in enumerate(("", "mIoU", "drop", "latency", "load", "size", "memory")):
        files.add_column(heading, justify="right" if place else "left")
    for row in content["rows"]:
        (measured,) = row["measurements"]
        style = "bold" if row["chosen"] else "" if row["on_front"] or row["model"] == "teacher" else "dim"
        files.add_row(
            Text(row["label"] + (" ✓" if row["chosen"] else "")),
            show("miou", row["mean_iou"]),
            f"{row['drop']:.2f}",
            show("latency", measured["latency_ms"]["median"]),
            percent(measured["load"]["others"]),
            show("size", row["file_bytes"]),
            show("memory", 1e6 * measured["peak_memory_mb"]),
            style=style,
        )
    console = out_console()
    console.print(files)
    if (notice := load_notice(content)) is not None:
        tell(notice)
    for entry in outcome.found.entries:
        if not entry.files:
            console.print(f"{entry.name}: {entry.reason}", markup=False, style="dim")
    console.print(f"chosen: {content['chosen']['label']} → {outcome.model}", markup=False, style="bold")
    console.print(f"every candidate: {outcome.out / PAGE}; report: {outcome.out / 'report.html'}", markup=False)
