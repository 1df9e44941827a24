"""What the options of losses must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segshrink.errors import ConfigError, nearest
from segshrink.losses.registry import Loss


def check_options(name: str, loss: Loss, options: Mapping[str, Any]) -> None:
    """Refuse an option that a loss doesn't have, or that is out of its range.

    Raises:
        ConfigError: Names the nearest option, or the range.
    """
    for option, value in options.items():
        if option not in loss.options:
            raise ConfigError(f"loss term '{name}' has no option '{option}'{nearest(option, loss.options)}")
        holds, description = RULES[option]
        if not holds(value):
            raise ConfigError(f"option '{option}' of loss term '{name}' must be {description}, found {value!r}")


def is_number(value: Any) -> bool:
    """Tell a finite number from anything else; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _at_least_zero(value: Any) -> bool:
    return is_number(value) and bool(value >= 0)


def _are_weights(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(_at_least_zero(item) for item in value) and any(item > 0 for item in value)


# What an option must be, and the text that says so.
RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "alpha": (_at_least_zero, "a number of at least 0"),
    "beta": (_at_least_zero, "a number of at least 0"),
    "class_weights": (lambda value: value is None or _are_weights(value), "a list of numbers of at least 0, not all 0"),
    "classes": (lambda value: value in ("all", "present"), "'all' or 'present'"),
    "gamma": (_at_least_zero, "a number of at least 0"),
    "label_smoothing": (lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "least": (lambda value: is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "mask_ratio": (lambda value: is_number(value) and 0 <= value < 1, "a number of at least 0 and below 1"),
    "mode": (lambda value: value in ("code", "paper"), "'code' or 'paper'"),
    "pool": (lambda value: isinstance(value, int) and is_number(value) and value >= 1, "a whole number of at least 1"),
    "reduction": (lambda value: value in ("mean", "sum"), "'mean' or 'sum'"),
    "scale": (lambda value: is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "smooth": (_at_least_zero, "a number of at least 0"),
    "standardize": (lambda value: isinstance(value, bool), "true or false"),
    "temperature": (lambda value: is_number(value) and value > 0, "a number above 0"),
    "threshold": (lambda value: is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "tolerance": (
        lambda value: isinstance(value, int) and is_number(value) and value >= 3 and value % 2 == 1,
        "an odd number of at least 3",
    ),
}
