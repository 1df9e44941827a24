"""What networks of any library give: one tensor of scores among a tuple, a dictionary or an object."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segshrink.errors import ConfigError, ModelError, nearest

# What torchvision and others call the output that counts.
_MAIN_OUTPUTS = ("out", "logits")
_LOGGER = logging.getLogger(__name__)
_CHOICE = "%s answers with %s; %s is taken; another is chosen by 'output_name' in a teacher's adapter"


def chosen_output(output: Any, choice: str | int = 0, name: str = "the network") -> Tensor:
    """Return one of a network's outputs: by name, by position, or the only one there is.

    Args:
        output: A tensor; a mapping or a sequence of tensors, or an object with tensors as attributes.
        choice: Name or position; of named outputs, position 0 means "out" or "logits" where there is one.
        name: How messages call the network.

    Raises:
        ConfigError: There is no such output.
        ModelError: It isn't a tensor.
    """
    if not isinstance(output, Tensor):
        output = _picked(output, choice, name)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"{name} answers with {type(output).__name__}, expected a tensor; say which output in its adapter "
            "('output_name')"
        )
    return output


def tell_choice(output: Any, name: str) -> None:
    """Log which of several outputs ``chosen_output`` takes unasked, where neither is called "out" or "logits"."""
    names = [str(key) for key in output] if isinstance(output, Mapping) else []
    if len(names) > 1 and not set(names) & set(_MAIN_OUTPUTS):
        _LOGGER.warning(_CHOICE, name, ", ".join(names), names[0])
    elif isinstance(output, list | tuple) and len(output) > 1 and not hasattr(output, "logits"):
        _LOGGER.warning(_CHOICE, name, f"{len(output)} outputs", "the first")


def _picked(output: Any, choice: str | int, name: str) -> Any:
    if isinstance(output, Mapping):
        names = [str(key) for key in output]
        if choice == 0:
            choice = next((key for key in _MAIN_OUTPUTS if key in names), names[0] if names else 0)
        if isinstance(choice, int) and choice < len(names):
            choice = names[choice]
        if choice not in names:
            raise ConfigError(f"{name} has no output '{choice}'{nearest(str(choice), names)}")
        return output[choice]
    if isinstance(choice, str):
        if not hasattr(output, choice):
            raise ConfigError(f"{name} has no output '{choice}'; its answer is of type {type(output).__name__}")
        return getattr(output, choice)
    if isinstance(output, Sequence):
        if not 0 <= choice < len(output):
            raise ConfigError(f"{name} has {len(output)} output(s), numbered from 0; its adapter asks for {choice}")
        return output[choice]
    return getattr(output, "logits", output)
