"""``segshrink train``: supervised training of a teacher, or of a student without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Data, Out, Overrides, RecipeFile, Resume


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    data: Data = None,
    out: Out = Path("runs/teacher"),
    control: Annotated[bool, typer.Option("--control", help="Train the recipe's student, without a teacher.")] = False,
    resume: Resume = False,
) -> None:
    """Train a network on the labels alone.

    The recipe's teacher or, with --control, its student; measured and reported at the end.
    """
    from segshrink.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data)
    from segshrink.cli._tables import print_comparison
    from segshrink.cli._work import measure_run, time_runs, train_run
    from segshrink.report import build_report

    train_run(loaded, out=out, role="control" if control else "teacher", resume=resume)
    measure_run(out)
    time_runs([out])
    print_comparison(build_report([out]))
