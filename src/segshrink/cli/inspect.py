"""``segshrink inspect``: looks through a data set before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set description (YAML).", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as root=/data.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Look for what is wrong with a data set.

    Shows pairs, sizes and class shares; finds unreadable, unpaired or mismatched files, undeclared mask colours, and
    duplicate and near-duplicate images across splits. Exit status 1 when something must be fixed.
    """
    from segshrink.config import load_dataset

    description = load_dataset(data, overrides or ())
    from segshrink.cli._console import progress_bar
    from segshrink.cli._inspection import print_inspection
    from segshrink.data import inspect_dataset

    with progress_bar("inspect") as advance:
        found = inspect_dataset(description, progress=advance)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_inspection(found)
    if not found.sound:
        raise typer.Exit(1)
