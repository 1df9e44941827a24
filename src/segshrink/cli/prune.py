"""``segshrink prune``: a smaller copy of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Model, Overwrite, Resume


def prune(
    model: Model,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Model folder, or with --recipe run folder, to write.", show_default=False),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of --recipe.", show_default=False),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            "--width",
            help="Share of the channels that every layer keeps, such as 0.5.",
            min=0,
            max=1,
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        float | None,
        typer.Option(
            "--depth", help="Share of the removable residual blocks to keep.", min=0, max=1, show_default=False
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            "--ratio",
            help="Share of all channels to remove, wherever they matter least.",
            min=0,
            max=1,
            show_default=False,
        ),
    ] = None,
    macs: Annotated[
        str | None,
        typer.Option("--macs", help="Multiply-accumulates to come down to, such as 500M.", show_default=False),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option("--parameters", help="Parameters to come down to, such as 1.2M.", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Side in pixels of the image for --macs.")] = 512,
    steps: Annotated[int, typer.Option("--steps", help="Prune in so many steps.")] = 5,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="Recipe (YAML) by which the original then teaches the copy.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Data set (YAML) whose images say what matters, and instead of the recipe's.",
            show_default=False,
        ),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also train the copy without the original, and compare.")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a smaller copy of a trained model.

    Give --width or --depth or both, or one of --ratio, --macs and --parameters. With --recipe the copy then learns
    from the original, and the report compares the two; without it accuracy is lost until it does.
    """
    from segshrink.cli._prune import Cut, distil_copy, make_copy

    wanted = Cut.parse(width=width, depth=depth, ratio=ratio, macs=macs, parameters=parameters, size=size, steps=steps)
    if recipe is None:
        make_copy(model, out, wanted, data=data, overwrite=overwrite, overrides=overrides or ())
    else:
        distil_copy(model, out, wanted, recipe, overrides or (), data=data, control=control, resume=resume)
