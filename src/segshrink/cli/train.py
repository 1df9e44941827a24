"""``segshrink train``: supervised training of a teacher, or of a student without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._launch import took_part
from segshrink.cli._options import Data, Out, Overrides, RecipeFile, Resume


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    data: Data = None,
    out: Out = Path("runs/teacher"),
    control: Annotated[bool, typer.Option("--control", help="Train the recipe's student, without a teacher.")] = False,
    resume: Resume = False,
    memory: Annotated[str | None, typer.Option(help="Choose batches and crops that stay below: 4GB, 800MB.")] = None,
) -> None:
    """Train a network on the labels alone.

    The recipe's teacher or bank of teachers or, with --control, its student; measured and reported at the end.
    """
    from segshrink.config import load_recipe

    loaded = load_recipe(recipe, overrides or (), data)
    if took_part(loaded, loaded.student if control else loaded.teacher):
        return
    from segshrink.compression.budget import Budget

    limit = None if memory is None else Budget.parse(f"memory<={memory}").limit("memory")
    from segshrink.cli._console import progress_bars
    from segshrink.cli._tables import print_comparison
    from segshrink.workflows.train import train as run_training

    with progress_bars() as progress:
        result = run_training(loaded, out=out, control=control, resume=resume, memory=limit, progress=progress)
    print_comparison(result.report)
