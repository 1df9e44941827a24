"""Networks that a user's own code makes: ``module:function``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from segshrink.errors import ModelError, nearest
from segshrink.models.user_module import import_user_module, one_line

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


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
    module = import_user_module(module_name, subject=f"teacher '{source}'")
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
