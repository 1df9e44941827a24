"""The consoles and progress bars of all verbs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import TextType

from segshrink.formatting import printable, printable_json, shortened

# Whether neither notices nor progress bars are shown.
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)
# Seconds between the lines of a log file, where no bar can move.
LINE_EVERY = 60.0
# Letters of such a line at least.
LOG_WIDTH = 140


def out_console() -> Console:
    """Return the console for results, on standard output."""
    return _console(soft_wrap=True)


def error_console() -> Console:
    """Return the console for notices, on standard error."""
    return _console(stderr=True, soft_wrap=True)


def empty_table(*headings: TextType, title: str | None = None, left: int = 1) -> Table:
    """Return a table without rows, whose columns are aligned to the right but for the first ``left``."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right")
    return table


def print_json(value: Any) -> None:
    """Print results as JSON on standard output."""
    sys.stdout.write(f"{printable_json(value)}\n")


def tell(notice: str) -> None:
    """Print a notice of one line on standard error, unless the command is to be quiet."""
    if not QUIET.get():
        error_console().print(f"note: {printable(shortened(notice))}")


@contextmanager
def progress_bar(text: str, *, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show a bar with the time left on standard error; yields ``advance(done, total, note="")``.

    Without a ``unit`` whole things are counted; with one, numbers are shown with one decimal. Where standard error is
    no terminal, a line is written every minute and at the end.
    """
    counted = TextColumn(f"{{task.completed:.1f}}/{{task.total:.1f}} {unit}") if unit else MofNCompleteColumn()
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=16, no_wrap=True)),
        BarColumn(bar_width=24),
        counted,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = _console(stderr=True)
    if not console.is_terminal:
        console.width = max(console.width, LOG_WIDTH)
    with Progress(*columns, console=console, refresh_per_second=4, disable=QUIET.get()) as bar:
        task = bar.add_task(text, total=None if not unit else 0.0, note="")

        def advance(done: float, total: float, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        ended = threading.Event()

        def write_lines() -> None:
            while not ended.wait(LINE_EVERY):
                console.print(bar.get_renderable())

        writer = threading.Thread(target=write_lines, daemon=True)
        if not console.is_terminal and not QUIET.get():
            writer.start()
        try:
            yield advance
        except BaseException:  # Ctrl-C, too
            if not bar.tasks[task].completed:  # nothing to show beside the error
                bar.update(task, visible=False)
                bar.live.transient = bar.disable = True
                bar.live.stop()
            raise
        finally:
            ended.set()
            if writer.is_alive():
                writer.join()  # or its line comes after what follows


@contextmanager
def progress_bars() -> Iterator[Callable[..., None]]:
    """Show a bar for each stage of a verb, one after the other; yields what a workflow tells its progress to."""
    with ExitStack() as stack:
        stage, advance = "", None

        def progress(name: str, done: float, total: float, note: str = "") -> None:
            nonlocal stage, advance
            if name != stage or advance is None:
                stack.close()
                stage, advance = name, stack.enter_context(progress_bar(name))
            advance(done, total, note)

        yield progress


class NoteHandler(logging.Handler):
    """Shows what the library logs as notices."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a message as one line."""
        tell(record.getMessage())


class _Printable(RenderHook):
    """Writes escapes for what names of files and classes could command a terminal with."""

    def __init__(self, content: ConsoleRenderable | None = None) -> None:
        self._content = content

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(content) for content in renderables]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        if self._content is None:
            return
        for segment in console.render(self._content, options):
            lines = segment.text.split("\n")
            yield segment if segment.control else Segment("\n".join(map(printable, lines)), segment.style)


def _console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    # What looks like rich's markup, or like a name of an emoji, is part of somebody's name.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)
    console.push_render_hook(_Printable())
    return console
