"""The application: its verbs, and what becomes of an error."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from segshrink.cli._errors import interrupted_sentence, missing_extra, os_sentence
from segshrink.cli.demo import demo
from segshrink.cli.distill import distill
from segshrink.cli.evaluate import evaluate
from segshrink.cli.export import export
from segshrink.cli.inspect import inspect
from segshrink.cli.predict import predict
from segshrink.cli.report import report
from segshrink.cli.train import train
from segshrink.errors import SegshrinkError

_VERBS = (demo, inspect, train, distill, evaluate, predict, report, export)
INTERRUPTED = 130


def run(arguments: list[str]) -> int:
    """Run one verb; errors that a user can act on become one sentence on standard error."""
    # lightning 2.6 asks torch >= 2.13 for its tree nodes by their old name.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
    try:
        application()(arguments, prog_name="segshrink")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _tell(interrupted_sentence(arguments))
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except SegshrinkError as error:
        _tell(f"error: {error}")
    except ModuleNotFoundError as error:
        extra = missing_extra(error, arguments)
        if extra is None:
            raise
        _tell(f"error: {extra}")
    except OSError as error:
        _tell(f"error: {os_sentence(error)}")
    return 1


def application() -> typer.Typer:
    """Build the application with all verbs."""
    app = typer.Typer(
        name="segshrink",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for verb in _VERBS:
        app.command()(verb)
    return app


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Turn a big segmentation model into a small one that is as good, and prove it."""
    if version:
        from segshrink import __version__

        typer.echo(__version__)
        raise typer.Exit


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
