"""Functions of users that recipes and model folders name as ``module:function``: called where the user wants it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from segshrink.errors import ModelError, SegshrinkError, nearest, one_line

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# What stands before a colon and is no module.
KINDS = ("custom", "exported", "hf", "keras", "labels", "onnx", "smp", "tflite", "torchscript", "torchvision")
_TRUSTED: ContextVar[frozenset[str]] = ContextVar("trusted_functions", default=frozenset())


def is_function(text: str) -> bool:
    """Tell whether a text is written like ``package.module:function``."""
    return _FUNCTION.fullmatch(text) is not None and text.partition(":")[0] not in KINDS


@contextmanager
def trusted_functions(*names: str) -> Iterator[None]:
    """Let model folders be opened in the block whose networks these functions make.

    A folder, which anybody may have written, names such a function; nothing calls it elsewhere. The verbs trust what
    the user's own recipe names.

    Args:
        names: ``package.module:function`` each.

    Example:
        >>> with trusted_functions("my_nets:small"):
        ...     is_trusted("my_nets:small"), is_trusted("my_nets:large")
        (True, False)
    """
    token = _TRUSTED.set(_TRUSTED.get() | set(names))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def is_trusted(name: str) -> bool:
    """Tell whether a function is trusted here, see ``trusted_functions``."""
    return name in _TRUSTED.get()


def all_trusted() -> list[str]:
    """List the functions that are trusted here, for a process that goes on with the work."""
    return sorted(_TRUSTED.get())


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
    except (Exception, SystemExit) as error:  # anything may go wrong in a user's code
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and name.endswith(".py") and f"{name}.".startswith(f"{missing}."):
            raise ModelError(
                f"{subject}: {name} is a file's name; write {name.removesuffix('.py')}:FUNCTION"
            ) from error
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ModelError(
                f"{subject}: there is no module {missing} in {here} or among the installed packages; correct its name"
            ) from error
        raise ModelError(f"{subject}: importing {name} failed with {one_line(error)}; correct it") from error


def user_function(source: str, *, subject: str, raises: type[SegshrinkError] = ModelError) -> Callable[..., Any]:
    """Import a function.

    Args:
        source: ``package.module:function``; a class does as well.
        subject: What names it, for messages.
        raises: The kind of error where the module has no such function.

    Raises:
        SegshrinkError: There is no such module or function, or importing fails.
    """
    module_name, _, name = source.partition(":")
    module = import_user_module(module_name, subject=subject)
    function = getattr(module, name, None)
    if function is not None and not (inspect.isroutine(function) or isinstance(function, type | partial)):
        kind = type(function).__name__
        raise raises(f"{subject}: {name} in {module_name} is {kind}, no function; write a function that returns it")
    if function is None:
        public = [entry for entry, value in vars(module).items() if not entry.startswith("_") and callable(value)]
        raise raises(f"{subject}: {module_name} has no function '{name}'{nearest(name, public)}")
    return function


def call_function(
    source: str, options: Mapping[str, Any], *, subject: str, raises: type[SegshrinkError] = ModelError
) -> Any:
    """Import a function and return what it makes.

    Args:
        source: As in ``user_function``.
        options: Its keyword arguments.
        subject: As in ``user_function``.
        raises: The kind of error where there is no such function, or it fails.

    Raises:
        SegshrinkError: There is no such module or function, or it fails.
    """
    function = user_function(source, subject=subject, raises=raises)
    try:
        return function(**options)
    except (Exception, SystemExit) as error:  # anything may go wrong in a user's code
        name = source.partition(":")[2]
        remedy = "correct it, or give its arguments as 'options'" if isinstance(error, TypeError) else "correct it"
        raise raises(f"{subject}: {name}() failed with {one_line(error)}; {remedy}") from error


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's arguments; none where it doesn't tell."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
