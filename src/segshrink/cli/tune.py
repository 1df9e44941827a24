"""``segshrink tune``: the values of a recipe that make the best student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Data, Overrides, RecipeFile, Teachers, words


def tune(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    overrides: Overrides = None,
    teacher: Teachers = None,
    data: Data = None,
    trials: Annotated[
        int, typer.Option("--trials", "-n", help="How many the student gets, and its control.", min=1)
    ] = 40,
    timeout: Annotated[str | None, typer.Option(help="Begin no trial after this time: 90s, 30m, 2h, 1d.")] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", help="Processes that share this machine.", min=1)] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            help="postgresql://... or mysql://..., or a file on a local disk, that all workers reach; by default a "
            "file in --out."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study in --out, or join the workers at its storage.")
    ] = False,
    objective: Annotated[
        str, typer.Option(help="What is measured, with commas: miou, latency, parameters, macs.")
    ] = "miou",
    sampler: Annotated[
        str, typer.Option(help="What chooses values: tpe, gp, cmaes, nsga2, random, grid, qmc.")
    ] = "tpe",
    pruner: Annotated[str, typer.Option(help="What stops hopeless trials early: median, hyperband, none.")] = "median",
    control: Annotated[
        bool,
        typer.Option("--control/--no-control", help="Tune the control, too: the same student without the teacher."),
    ] = True,
) -> None:
    """Search the values of a recipe that make the best student.

    A value is open where a range or choices stand in its place, in the recipe or as KEY=VALUE: learning_rate: {log:
    [1e-4, 1e-2]}, {uniform: [0, 1]}, {int: [5, 20]}, {choice: [128, 256]}. Where nothing is open, the usual values are.

    Inside OUT: best.yaml and best-control.yaml, ready for distill and train; report.html, which shows the trials while
    they run; study.json; a run folder for each trial.
    """
    from segshrink.config import distillation_overrides, load_open_recipe

    loaded, space = load_open_recipe(recipe, [*distillation_overrides(teacher or ()), *(overrides or ())], data)
    from segshrink.cli._console import progress_bars
    from segshrink.cli._tables import print_study
    from segshrink.tuning.study import Settings
    from segshrink.workflows.time_limit import seconds_of
    from segshrink.workflows.tune import tune as search

    seconds = None if timeout is None else seconds_of(timeout)
    settings = Settings(trials, tuple(words(objective)), sampler, pruner, seconds)
    with progress_bars() as progress:
        result = search(
            loaded,
            out=out,
            space=space,
            settings=settings,
            storage=storage,
            workers=workers,
            control=control,
            resume=resume,
            progress=progress,
        )
    print_study(result.report, result.folder)
