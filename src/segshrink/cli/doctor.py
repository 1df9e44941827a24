"""``segshrink doctor``: why distillation doesn't work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import AsJson, Overrides, Overwrite


def doctor(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="[RECIPE]", help="Recipe (YAML); not needed with --data.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            help="Run or model folder, or another source as recipes name them, instead of the recipe's teachers.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Data set description (YAML), instead of the recipe's.", show_default=False),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student", "-s", help="Run or model folder, or network id; a run knows its recipe.", show_default=False
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", help="Crops to look at, by default 32.", min=2, show_default=False),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Let teachers that the student's run folder names run code or ask the network.",
            show_default=False,
        ),
    ] = False,
    as_json: AsJson = False,
    json_file: Annotated[Path | None, typer.Option("--json-file", hidden=True)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find out why distillation does not work.

    Measures the teacher on your own validation images, tries the usual causes where it does badly, and names the one
    that explains it with the recipe line that mends it; looks at the balance of the terms, and whether the student has
    collapsed. Exit status 1 when a fault was found.
    """
    from segshrink.cli._doctor import patient_of, print_diagnosis
    from segshrink.files import refuse_foreign, write_json

    if json_file is not None:
        refuse_foreign(json_file, overwrite=overwrite)
    patient = patient_of(recipe, overrides or (), teachers=teacher or (), data=data, student=student, trust=trust)
    from segshrink.cli._console import print_json, progress_bar
    from segshrink.cli._work import use_free_threads
    from segshrink.doctor import examine

    use_free_threads()
    with progress_bar("doctor") as advance:
        found = examine(patient, images=images, progress=advance)
    if json_file is not None:
        write_json(json_file, found.to_dict(), overwrite=overwrite)
    if as_json:
        print_json(found.to_dict())
    else:
        print_diagnosis(found)
    if not found.healthy:
        raise typer.Exit(1)
