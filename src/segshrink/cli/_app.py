"""The application: its verbs, and what becomes of an error."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import typer

from segshrink.cli._errors import interrupted_sentence, memory_sentence, os_sentence
from segshrink.cli.benchmark import benchmark
from segshrink.cli.compress import compress
from segshrink.cli.demo import demo
from segshrink.cli.distill import distill
from segshrink.cli.doctor import doctor
from segshrink.cli.evaluate import evaluate
from segshrink.cli.export import export
from segshrink.cli.init import init
from segshrink.cli.inspect import inspect
from segshrink.cli.labels import labels
from segshrink.cli.predict import predict
from segshrink.cli.prune import prune
from segshrink.cli.quantize import quantize
from segshrink.cli.report import report
from segshrink.cli.submit import submit
from segshrink.cli.train import train
from segshrink.cli.tune import tune
from segshrink.cli.watch import watch
from segshrink.errors import SegshrinkError, UsageError
from segshrink.extras import missing_extra
from segshrink.formatting import printable, shortened
from segshrink.signals import Terminated, ending_on_signals
from segshrink.version import __version__

_VERBS = (
    init,
    demo,
    doctor,
    inspect,
    labels,
    train,
    distill,
    tune,
    watch,
    evaluate,
    predict,
    report,
    export,
    benchmark,
    compress,
    prune,
    quantize,
    submit,
)
_HELP = ["-h", "--help"]
WRONG_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def run(arguments: list[str]) -> int:
    """Run one verb; errors that a user can act on become one sentence on standard error.

    SIGTERM and SIGHUP end it like Ctrl-C, with exit status 143 and 129; a reader that has gone ends it without a word.
    """
    with ending_on_signals():
        try:
            status = copy_context().run(_run, arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # What is still buffered can go nowhere; Python would complain about it at its end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    os.dup2(nowhere, stream.fileno())
            return BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    # lightning 2.6 asks torch >= 2.13 for its tree nodes by their old name.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
    if arguments == ["--version"]:  # an option for typer to parse would make every help text wait for pydantic
        sys.stdout.write(f"segshrink {__version__}\n")
        return 0
    if {"-q", "--quiet"} & {*arguments}:
        from segshrink.cli._console import QUIET

        QUIET.set(True)
        arguments = [text for text in arguments if text not in ("-q", "--quiet")]
    arguments = _renamed(arguments)
    _show_notices()
    if len(arguments) == 2 and arguments[1] in _HELP and (text := _help(arguments[0])):
        sys.stdout.write(f"{text}\n")
        return 0
    try:
        application()(arguments, prog_name="segshrink")
    except SystemExit as stop:
        if stop.code == INTERRUPTED or isinstance(stop, Terminated):
            _tell(interrupted_sentence(arguments))
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except UsageError as error:
        _tell(f"error: {error}")
        return WRONG_USAGE
    except SegshrinkError as error:
        _tell(f"error: {error}")
    except ModuleNotFoundError as error:
        extra = missing_extra(error, feature=f"segshrink {arguments[0]}")
        if extra is None:
            raise
        _tell(f"error: {extra}")
    except BrokenPipeError:
        raise
    except OSError as error:
        _tell(f"error: {memory_sentence(error, arguments) or os_sentence(error)}")
    except Exception as error:  # libraries tell of a lack of memory by errors of many kinds
        if (sentence := memory_sentence(error, arguments)) is None:
            raise
        _tell(f"error: {sentence}")
    return 1


def application() -> typer.Typer:
    """Build the application with all verbs."""
    app = typer.Typer(
        name="segshrink",
        no_args_is_help=True,
        context_settings={"help_option_names": _HELP},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(
        epilog="segshrink --version prints the version; every VERB explains itself with --help, and shows neither "
        "progress nor notices with --quiet (-q)."
    )(_root)
    for verb in _VERBS:
        app.command()(verb)
    return app


def _help(verb: str) -> str | None:
    """Return a verb's help text without parsing anything; None for an unknown verb."""
    root: Any = typer.main.get_command(application())
    command = root.commands.get(verb)
    if command is None:
        return None
    return str(command.get_help(typer.Context(command, info_name=f"segshrink {verb}", help_option_names=_HELP)))


def _renamed(arguments: list[str]) -> list[str]:
    """Put the present options in the place of earlier spellings, with a notice."""
    renamed, notice = arguments, ""
    if arguments[:1] == ["train"] and "--student" in arguments:
        renamed = ["--control" if text == "--student" else text for text in arguments]
        notice = "train --student is called --control now"
    elif arguments[:1] == ["doctor"]:
        parts = [part for text in arguments for part in (text.split("=", 1) if text.startswith("--json=") else [text])]
        place = parts.index("--json") if "--json" in parts else len(parts)
        if parts[place + 1 : place + 2] and parts[place + 1].endswith(".json"):
            renamed = [*parts[:place], "--json-file", *parts[place + 1 :]]
            notice = "doctor --json prints to standard output now; write --json > FILE"
    if notice:
        from segshrink.cli._console import tell

        tell(notice)
    return renamed


def _show_notices() -> None:
    """Show what the library logs on standard error."""
    from segshrink.cli._console import NoteHandler

    logger = logging.getLogger("segshrink")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, NoteHandler) for handler in logger.handlers):
        logger.addHandler(NoteHandler())


def _root() -> None:
    """Turn a big segmentation model into a small one that is as good, and prove it."""


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{printable(shortened(sentence))}\n")
