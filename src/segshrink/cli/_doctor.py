"""Who a doctor's examination is about, and what it found, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshrink.cli._console import error_console, out_console
from segshrink.cli._teaching import without_notices
from segshrink.config import Recipe, TeacherSource, Teaching, load_dataset, load_recipe
from segshrink.doctor import Diagnosis, Finding, Patient, examine
from segshrink.errors import ConfigError, UsageError
from segshrink.records import Section
from segshrink.teachers import is_data

_STYLES = {"fault": "bold red", "warning": "bold yellow", "fine": "green"}
_SIGNS = {"fault": "✗", "warning": "!", "fine": "✓"}


def patient_of(
    recipe: Path | None,
    overrides: Sequence[str],
    *,
    teachers: Sequence[str],
    data: Path | None,
    student: str | None,
    trust: bool = False,
) -> Patient:
    """Put together who is examined.

    Args:
        recipe: The recipe; None takes that of the student's run, or a recipe's defaults with ``data``.
        overrides: ``key=value`` texts for the recipe; without a recipe the first stands in its place.
        teachers: Sources of teachers; none takes the recipe's, or those of the student's run.
        data: Data set description instead of the recipe's.
        student: Run or model folder, or network id.
        trust: Whether teachers that the student's run names may run code of their own or ask the network.

    Raises:
        ConfigError: Nothing says which data or which teacher, or the run names a teacher that isn't trusted.
        FileError: A file is missing or unreadable.
    """
    if recipe is not None and "=" in recipe.name and not recipe.exists():
        recipe, overrides = None, [str(recipe), *overrides]
    run = Path(student) if student is not None and (Path(student) / "config.yaml").exists() else None
    path = recipe or (run and run / "config.yaml")
    if path is not None:
        loaded = load_recipe(path, overrides, data)
    elif overrides:
        raise UsageError(f"'{overrides[0]}' changes a recipe; give one, or a student's run, which knows its own")
    elif data is not None:
        loaded = Recipe(name="doctor", data=load_dataset(data))
    else:
        raise UsageError("nothing says which images to look at; give a RECIPE, or --data with --teacher")
    sources = _sources(loaded, teachers, run)
    own = bool(teachers) or (recipe is not None and bool(loaded.distillation.teachers))
    if run is not None and not own and not trust:
        _refuse_code(run, sources)
    return Patient(loaded, sources, student)


def print_diagnosis(found: Diagnosis) -> None:
    """Print the verdict and every finding with its remedy."""
    console = out_console()
    console.print(_verdict(found))
    for finding in found.findings:
        _print_finding(console, finding)


def examine_briefly(recipe: Recipe, teaching: Teaching) -> None:
    """Look at a few crops before a training and print a line for each thing that was found; never raises.

    Args:
        recipe: The recipe of the training.
        teaching: Its teachers.
    """
    console = error_console()
    try:
        with without_notices():
            found = examine(Patient(recipe, tuple(teaching.teachers)), brief=True)
    except Exception as error:  # a training may go well though its examination doesn't
        console.print(f"doctor: couldn't look ({' '.join(str(error).split())})", markup=False)
        return
    for finding in found.findings:
        remedy = f" → {'; '.join(finding.remedy.splitlines())}" if finding.remedy else ""
        style = _STYLES[finding.severity]
        console.print(Text.assemble("doctor: ", (finding.severity, style), f"  {finding.seen}", (remedy, "cyan")))


def _sources(recipe: Recipe, given: Sequence[str], run: Path | None) -> tuple[TeacherSource, ...]:
    """Return the teachers: those that were given, or the recipe's, or those that a run learned from."""
    listed = recipe.distillation.teachers
    if given:
        return tuple(next((one for one in listed if one.source == name), TeacherSource(source=name)) for name in given)
    return tuple(listed) if listed or run is None else _learned_from(run)


def _learned_from(run: Path) -> tuple[TeacherSource, ...]:
    """Return the teachers that a run learned from."""
    record = Section.read(run / "run.json")
    try:
        return tuple(TeacherSource.model_validate(one.values) for one in record.sections("teachers")) if record else ()
    except ValidationError as error:
        raise ConfigError(f"{run / 'run.json'} names its teachers wrongly; name them with --teacher") from error


def _refuse_code(run: Path, sources: Sequence[TeacherSource]) -> None:
    """Refuse teachers that only a run folder names, which anybody may have written, where they are more than data.

    Raises:
        ConfigError: Opening one would run code that it names, or ask the network.
    """
    theirs = [*load_recipe(run / "config.yaml").distillation.teachers, *_learned_from(run)]
    for source in sources:
        if source in theirs and not is_data(source):
            raise ConfigError(
                f"the run {run} names the teacher '{source.source}', which would run code or ask the network; give "
                "--trust if you trust whoever wrote that folder, or name the teacher yourself with --teacher"
            )


def _verdict(found: Diagnosis) -> Text:
    about = f"  {found.data}, {found.images} crops of {found.size} px"
    if found.faults:
        count = len(found.faults)
        told = f"{count} fault{'s' if count > 1 else ''}: mend what comes first, then ask again"
        return Text.assemble((told, "bold red"), about)
    if found.warnings:
        return Text.assemble(("no fault, but worth a look", "bold yellow"), about)
    return Text.assemble(("healthy", "bold green"), about)


def _print_finding(console: Console, finding: Finding) -> None:
    rows = Table.grid(padding=(0, 2))
    sign = Text(f"{_SIGNS[finding.severity]} {finding.severity}", _STYLES[finding.severity])
    if finding.severity == "fine":
        rows.add_column(width=9)
        rows.add_row(sign, finding.seen)
        console.print(rows)
        return
    console.print()
    console.print(sign.append(f"  {finding.kind}", "bold default"))
    rows.add_row("", finding.seen)
    rows.add_row("", Text(finding.why, "dim"))
    console.print(rows)
    for line in finding.remedy.splitlines():
        # In one piece, to be copied, however wide the terminal is.
        console.print(Text.assemble("  → ", (line, "cyan")))
