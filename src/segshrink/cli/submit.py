"""``segshrink submit``: a recipe as a job of SLURM's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Overrides, RecipeFile


def submit(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")],
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(help="Machines.", min=1)] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each machine.", min=1)] = 1,
    cpus: Annotated[int, typer.Option(help="Cores for each GPU.", min=1)] = 4,
    time: Annotated[str, typer.Option(help="Longest time of the job, as SLURM writes it.")] = "24:00:00",
) -> None:
    """Print the SLURM job that trains a recipe on many GPUs.

    It distills where the recipe has a student, else it trains the teacher. When its time is up the job queues again and
    goes on. Hand it over with: segshrink submit RECIPE ... | sbatch
    """
    from segshrink.workflows.submit import submit as job_of

    text = job_of(recipe, out=out, nodes=nodes, gpus=gpus, cpus=cpus, time=time, overrides=overrides or ())
    sys.stdout.write(text)
