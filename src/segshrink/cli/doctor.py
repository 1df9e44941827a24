"""``segshrink doctor``: why distillation doesn't work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segshrink.cli._options import AsJson, Overrides, Teachers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from segshrink.doctor import Diagnosis, Finding

_STYLES = {"fault": "bold red", "warning": "bold yellow", "fine": "green"}
_SIGNS = {"fault": "✗", "warning": "!", "fine": "✓"}


def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe (YAML); not needed with --data.")
    ] = None,
    overrides: Overrides = None,
    teacher: Teachers = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Data set description (YAML), instead of the recipe's.")
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", "-s", help="Run or model folder, or network id; a run knows its recipe.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Crops to look at, by default 32.", min=2)] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Let the student's run folder, and teachers that it names, run code or ask the network.",
            show_default=False,
        ),
    ] = False,
    as_json: AsJson = False,
    json_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", hidden=True)] = False,
) -> None:
    """Find out why distillation does not work.

    Measures the teacher on your own validation images, tries the usual causes where it does badly, and names the one
    that explains it with the recipe line that fixes it; looks at the balance of the terms, and whether the student has
    collapsed. Exit status 1 when a fault was found.
    """
    from segshrink.cli._console import print_json, progress_bars
    from segshrink.files import refuse_foreign, write_json

    if json_file is not None:
        refuse_foreign(json_file, overwrite=overwrite)
    if recipe is not None and "=" in recipe.name and not recipe.exists():
        recipe, overrides = None, [str(recipe), *(overrides or ())]
    from segshrink.workflows.diagnose import diagnose

    with progress_bars() as progress:
        diagnosis = diagnose(
            recipe,
            overrides or (),
            teacher=teacher or (),
            data=data,
            student=student,
            images=images,
            trust=trust,
            progress=progress,
        )
    if json_file is not None:
        write_json(json_file, diagnosis.to_dict(), overwrite=overwrite)
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        _print(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    """Print the verdict and every finding with its fix."""
    from segshrink.cli._console import out_console

    console = out_console()
    console.print(_verdict(diagnosis))
    for finding in diagnosis.findings:
        _print_finding(console, finding)


def _verdict(diagnosis: Diagnosis) -> Text:
    from rich.text import Text

    about = f"  {diagnosis.data}, {diagnosis.images} crops of {diagnosis.size} px"
    if diagnosis.faults:
        count = len(diagnosis.faults)
        message = f"{count} fault{'s' if count > 1 else ''}: fix what comes first, then ask again"
        return Text.assemble((message, "bold red"), about)
    if diagnosis.warnings:
        return Text.assemble(("no fault, but worth a look", "bold yellow"), about)
    return Text.assemble(("healthy", "bold green"), about)


def _print_finding(console: Console, finding: Finding) -> None:
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2))
    sign = Text(f"{_SIGNS[finding.severity]} {finding.severity}", _STYLES[finding.severity])
    if finding.severity == "fine":
        rows.add_column(width=9)
        rows.add_row(sign, finding.message)
        console.print(rows)
        return
    console.print()
    console.print(sign.append(f"  {finding.kind}", "bold default"))
    rows.add_row("", finding.message)
    rows.add_row("", Text(finding.why, "dim"))
    console.print(rows)
    for line in finding.fix.splitlines():
        # In one piece, to be copied, however wide the terminal is.
        console.print(Text.assemble("  → ", (line, "cyan")))
