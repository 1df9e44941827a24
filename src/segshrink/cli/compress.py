"""``segshrink compress``: from a teacher and images to the most accurate model within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segshrink.cli._options import Data, Overrides, RecipeFile, Teachers, run_of, words
from segshrink.machine import LARGEST_THREADS

if TYPE_CHECKING:
    from segshrink.compression.search import Outcome


def compress(
    recipe: RecipeFile,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            "-b",
            help="Limits with commas: latency<=20ms, size<=1MB, memory<=400MB, parameters<=500k, macs<=2G, drop<=1.0 "
            "(points of mIoU below the teacher), miou>=0.6, accuracy>=0.8.",
        ),
    ] = "size<=1MB",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write; by default runs/NAME-small, with the recipe's name."),
    ] = None,
    overrides: Overrides = None,
    teacher: Teachers = None,
    data: Data = None,
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "both"], typer.Option(help="What the model will run on.")
    ] = "onnxruntime",
    size: Annotated[int, typer.Option(help="Side in pixels of the image that is timed.", min=32)] = 512,
    threads: Annotated[
        int | None, typer.Option(help="Of the runtime; by default all cores.", min=1, max=LARGEST_THREADS)
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            help="Networks to look at besides the recipe's student: mobile, separable-unet, unet, smp:Unet, any id, "
            "with commas, or student for no other; by default the student's family and ours."
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="How many to distil at most.", min=1)] = 3,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps trainings and measurements, for several budgets to share; by default OUT/work."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
) -> None:
    """Find the most accurate small model within a budget.

    Measures networks of several families and widths on this machine before any training, distills the few that fit,
    exports them in fp32 and int8, scores the files themselves, and chooses. A recipe's own teacher is trained, unless
    distill trained one of the kind in runs/NAME.

    Inside OUT: the model, chosen.json, compress.md, pareto.json and .png, report.html, candidates.json.
    """
    from segshrink.compression.budget import Budget

    limits = Budget.parse(budget)
    from segshrink.config import distillation_overrides, load_recipe

    loaded = load_recipe(recipe, [*distillation_overrides(teacher or ()), *(overrides or ())], data)
    from segshrink.cli._console import progress_bars
    from segshrink.compression.search import Settings
    from segshrink.workflows.compress import compress as search
    from segshrink.workflows.compress import with_trained_teacher

    settings = Settings(
        runtimes=("onnxruntime", "openvino") if runtime == "both" else (runtime,),
        size=size,
        threads=threads,
        families=None if families is None else tuple(words(families)),
        candidates=candidates,
    )
    run = run_of(loaded)
    out, loaded = out or run.with_name(f"{run.name}-small"), with_trained_teacher(loaded, run)
    with progress_bars() as progress:
        outcome = search(loaded, limits, out=out, work=work, settings=settings, resume=resume, progress=progress)
    _print(outcome)


def _print(outcome: Outcome) -> None:
    """Print every file that was scored, what became of the other candidates, and the choice."""
    from segshrink.cli._console import empty_table, out_console, tell
    from segshrink.compression.search.results import FILE_COLUMNS, PAGE, file_cells, load_notice

    content = outcome.content
    files = empty_table(*FILE_COLUMNS)
    for row in content["rows"]:
        label, *numbers = file_cells(row)
        style = "bold" if row["chosen"] else "" if row["on_front"] or row["model"] == "teacher" else "dim"
        files.add_row(label + (" ✓" if row["chosen"] else ""), *numbers, style=style)
    console = out_console()
    console.print(files)
    if (notice := load_notice(content)) is not None:
        tell(notice)
    for result in outcome.results:
        if not result.files:
            console.print(f"{result.name}: {result.reason}", style="dim")
    console.print(f"chosen: {content['chosen']['label']} → {outcome.model}", style="bold")
    out = outcome.model.parent
    console.print(f"every candidate: {out / PAGE}; report: {out / 'report.html'}")
