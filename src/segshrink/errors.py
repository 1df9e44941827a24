"""Errors that a user can act on.

Every error is one sentence: what is wrong, in which file or field, what was found, what to do.
Each class is also the matching builtin, so that code which knows nothing of segshrink can catch it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from segshrink.formatting import shortened

_LONGEST = 200  # letters of a foreign error


class SegshrinkError(Exception):
    """Base of all errors raised on purpose; the command line prints its text, shortened, without a traceback."""

    def __str__(self) -> str:
        return shortened(super().__str__())


class ConfigError(SegshrinkError, ValueError):
    """A recipe, data set description or override is wrong."""


class UsageError(ConfigError):
    """An option or override that was given on the command line is wrong; exit status 2."""


class DataError(SegshrinkError, ValueError):
    """Images or masks contradict their description."""


class FileError(SegshrinkError, OSError):
    """A file or folder is missing, unreadable, truncated or can't be written."""


class ModelError(SegshrinkError, ValueError):
    """A model id, model folder or weight file is wrong, or doesn't match its input."""


class TrainingError(SegshrinkError, RuntimeError):
    """Training can't go on: a loss that isn't finite, a run that can't be resumed."""


class MissingExtraError(SegshrinkError, ImportError):
    """An optional dependency is absent; the text names the pip extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: {install_command(extra)}")
        self._missing = feature, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), self._missing


def install_command(extra: str) -> str:
    """Return the command that adds an extra of this package, from where the package itself was installed.

    The name alone is never advised: what stands under it on a package index need not be this program.
    """
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = json.loads(metadata.distribution("segshrink").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        record = {}
    url = str(record.get("url", ""))
    requirement = f"segshrink[{extra}]"
    if "vcs_info" in record:
        return f"pip install '{requirement} @ {record['vcs_info'].get('vcs', 'git')}+{url}'"
    source = Path(url2pathname(urlsplit(url).path))
    if "dir_info" in record and (source / "pyproject.toml").is_file():
        editable = "-e " if record["dir_info"].get("editable") else ""
        return f"pip install {editable}'{source}[{extra}]'"
    return f"pip install '.[{extra}]' in the folder of segshrink's source"


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says, without its full stop."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error  # whose own text is in quotes
    lines = str(text).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """Return the kind of a foreign error and all that it says on one line, cut where it is very long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or the list of all of them."""
    names = sorted(candidates)
    begun = [name for name in names if word and name.startswith(word)]
    close = begun if len(begun) == 1 else get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known are: {', '.join(names)}" if names else ""
