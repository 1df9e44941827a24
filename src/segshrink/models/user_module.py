"""Python modules of users, whose code makes networks or layers."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from segshrink.errors import ModelError

_LONGEST = 200  # letters of a foreign error


def import_user_module(name: str, *, subject: str) -> ModuleType:
    """Import a module; the working folder is searched first.

    Args:
        name: Such as "my_layers" or "package.module".
        subject: What names it, for messages.

    Raises:
        ModelError: There is no such module, or it fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except Exception as error:  # anything may go wrong in a user's code
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ModelError(
                f"{subject}: there is no module {missing} in {here} or among the installed packages; correct its name"
            ) from error
        raise ModelError(f"{subject}: importing {name} failed with {one_line(error)}; correct it") from error


def one_line(error: Exception | str) -> str:
    """Return what a foreign error says on one line, cut where it is very long."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_LONGEST]
