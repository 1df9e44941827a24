"""Networks that a user's own code makes: ``module:function``."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from segshrink.errors import ModelError, nearest

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_LONGEST = 200  # letters of a foreign error


def is_function(source: str) -> bool:
    """Tell whether a source is written like ``package.module:function``."""
    return _FUNCTION.fullmatch(source) is not None


def call_function(source: str, options: Mapping[str, Any]) -> nn.Module:
    """Import a function and return the network that it makes; the working folder is searched first.

    Args:
        source: ``package.module:function``; a class does as well.
        options: Its keyword arguments.

    Raises:
        ModelError: There is no such module or function, it fails, or it doesn't return a network.
    """
    module_name, _, name = source.partition(":")
    module = _imported(source, module_name)
    function = getattr(module, name, None)
    if not callable(function):
        public = [entry for entry in vars(module) if not entry.startswith("_")]
        raise ModelError(f"teacher '{source}': {module_name} has no function '{name}'{nearest(name, public)}")
    try:
        network = function(**options)
    except Exception as error:  # anything may go wrong in a user's code
        raise ModelError(f"teacher '{source}': {name}() failed with {one_line(error)}; correct it") from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"teacher '{source}': {name}() returned {type(network).__name__}, expected a torch.nn.Module; correct it"
        )
    return network


def one_line(error: Exception | str) -> str:
    """Return what a foreign error says on one line, cut where it is very long."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_LONGEST]


def _imported(source: str, module_name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except Exception as error:  # anything may go wrong in a user's code
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise ModelError(
                f"teacher '{source}': there is no module {missing} in {here} or among the installed packages; write "
                "package.module:function"
            ) from error
        raise ModelError(
            f"teacher '{source}': importing {module_name} failed with {one_line(error)}; correct it"
        ) from error
