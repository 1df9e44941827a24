"""A benchmark on the console: its options' lists, and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from segshrink.cli._console import out_console, tell
from segshrink.machine import default_threads

if TYPE_CHECKING:
    from segshrink.profiling.results import BenchmarkResult


def words(text: str) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def counts(text: str, *, option: str) -> list[int]:
    """Read numbers of 1 and more, with commas; "all" is the cores this process may use, or ``OMP_NUM_THREADS`` if less.

    Raises:
        BadParameter: Something else was found.
    """
    found = [default_threads() if word == "all" and option == "--threads" else _number(word) for word in words(text)]
    numbers = [number for number in found if number is not None and number >= 1]
    if not numbers or len(numbers) < len(found):
        every = " or all" if option == "--threads" else ""
        raise typer.BadParameter(f"'{text}' is no list of numbers from 1{every}, such as 1,8", param_hint=option)
    return list(dict.fromkeys(numbers))


def print_benchmark(result: BenchmarkResult) -> None:
    """Print the table, what it shows, and what has to be said beside it."""
    from segshrink.profiling.table import messages, subtitle, table

    headings, rows = table(result)
    shown = Table(title_justify="left")
    for place, heading in enumerate(headings):
        shown.add_column(Text(heading), justify="left" if place < 2 else "right")
    before = None
    for cells in rows:
        if before is not None and cells[0] != before:
            shown.add_section()
        name = "" if cells[0] == before else cells[0]
        shown.add_row(Text(name), *(_cell(cell) for cell in cells[1:]))
        before = cells[0]
    console = out_console()
    console.print(shown)
    console.print(subtitle(result), markup=False, style="dim")
    for message in messages(result):
        tell(message)


def _cell(text: str) -> Text:
    first, _, second = text.partition("\n")
    return Text.assemble(first, (f"\n{second}", "dim") if second else "")


def _number(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None
