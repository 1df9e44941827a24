"""The consoles and progress bars of all verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column


def out_console() -> Console:
    """Return the console for results, on standard output."""
    return Console(highlight=False, soft_wrap=True)


def tell(notice: str) -> None:
    """Print a notice of one line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"note: {notice}", markup=False)


@contextmanager
def progress_bar(text: str, *, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show a bar with the time left on standard error; yields ``advance(done, total, note="")``.

    Without a ``unit`` whole things are counted; with one, numbers are shown with one decimal.
    """
    counted = TextColumn(f"{{task.completed:.1f}}/{{task.total:.1f}} {unit}") if unit else MofNCompleteColumn()
    columns = (
        TextColumn("{task.description}", table_column=Column(min_width=16)),
        BarColumn(bar_width=24),
        counted,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(text, total=None if not unit else 0.0, note="")

        def advance(done: float, total: float, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        try:
            yield advance
        except BaseException:
            if not bar.tasks[task].completed:  # nothing to show beside the error
                bar.update(task, visible=False)
            raise
