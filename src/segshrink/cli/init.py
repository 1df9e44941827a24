"""``segshrink init``: from a folder to a data set description and a recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images and masks, or images alone with --teacher.")],
    teacher: Annotated[
        str | None, typer.Option("--teacher", "-t", help="A teacher that is there already, as in distill.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for data.yaml and recipe.yaml.")] = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take what is likeliest.")] = False,
) -> None:
    """Look at a folder and write a description and a recipe for it.

    Finds out which files are images and masks, how they are split, and what classes they hold, from names of folders
    and files, lists, and what the masks hold. Writes nothing inside FOLDER. What isn't sure is asked on a terminal;
    elsewhere, and with --yes, the likeliest is taken and marked with (?) in the files.
    """
    from segshrink.cli._console import out_console, progress_bars
    from segshrink.formatting import percent
    from segshrink.workflows.init import init as run_init
    from segshrink.workflows.init import take_first

    ask = take_first if yes or not sys.stdin.isatty() else _asked
    with progress_bars() as progress:
        made = run_init(folder, teacher=teacher, out=out, ask=ask, progress=progress)
    console = out_console()
    if made.pairs:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in made.classes.items())
        console.print(f"{made.pairs} images with masks; classes: {shares}")
    else:
        console.print(f"no image has a mask; classes of the teacher: {', '.join(made.classes)}")
    for doubt in made.unsure:
        console.print(f"please check  {doubt}")
    distill, compress = (
        "" if hours is None else f"  # about {hours:.2g} hours here" for hours in (made.hours, made.compress_hours)
    )
    console.print(f"wrote {made.data} and {made.recipe}; next:")
    console.print(f"  segshrink inspect {made.data}")
    control = " --control" if made.pairs else ""
    console.print(f"  segshrink distill {made.recipe}{control}{distill}")
    console.print(f"  segshrink compress {made.recipe}{compress}")


def _asked(question: str, answers: Sequence[str]) -> str:
    """Ask on the terminal; Enter takes the first answer."""
    return str(typer.prompt(f"{question} ({', '.join(answers)})", default=answers[0], err=True))
