"""Options that several verbs take, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segshrink.formatting import folder_name

if TYPE_CHECKING:
    from segshrink.config import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as student.training.epochs=5.")
]
Data = Annotated[Path | None, typer.Option("--data", "-d", help="Data set description (YAML) instead of the recipe's.")]
OwnData = Annotated[
    Path | None, typer.Option("--data", "-d", help="Data set description (YAML); a run folder knows its own.")
]
Split = Annotated[Literal["train", "val", "test"], typer.Option(help="Part of the data set.")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        "-t",
        help="Run or model folder, or another source as in distill, instead of the recipe's teachers.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")]
RunOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder to write; by default runs/NAME, with the recipe's name.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of these names that segshrink did not write, too.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON to standard output, and nothing else there.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let code run that MODEL names: the function that makes its network; a Keras file's Lambda layers, and "
        "the module in the .yaml beside it.",
    ),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Run folder or model folder.")]


def run_of(recipe: Recipe) -> Path:
    """Return the run folder of a recipe whose command names none."""
    return Path("runs") / folder_name(recipe.name, "run")


def words(text: str) -> list[str]:
    """Split a text at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
