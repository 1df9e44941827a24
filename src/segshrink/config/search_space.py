"""Open values of a recipe: the ranges and lists that a study chooses from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from segshrink.config.base import OPEN_KINDS, Strict, is_open
from segshrink.config.messages import explain
from segshrink.config.recipe import Recipe
from segshrink.errors import ConfigError

# What says which images judge, or what a run is called, can't be chosen by its score.
_FIXED = ("data", "name", "seed")
# Value of a recipe by its place, such as "student.training.learning_rate" or "distillation.terms.0.weight".
Space = dict[str, "OpenValue"]


class OpenValue(Strict):
    """What a study may put in the place of a value: exactly one of ``log``, ``uniform``, ``int`` and ``choice``."""

    model_config = ConfigDict(populate_by_name=True)

    log: tuple[float, float] | None = None
    """Smallest and largest number, both positive; every factor is as likely as any other."""
    uniform: tuple[float, float] | None = None
    """Smallest and largest number."""
    whole: tuple[int, int] | None = Field(default=None, alias="int")
    """Smallest and largest whole number."""
    choice: list[Any] | None = Field(default=None, min_length=1)
    """The values."""
    default: Any = None
    """The recipe's own value, which is tried first. Without it: the first choice, or the middle of a range, the
    geometric one with ``log``; where an override opens a value, the value that stands in the recipe."""

    @model_validator(mode="after")
    def _one_kind(self) -> OpenValue:
        if sum(value is not None for value in (self.log, self.uniform, self.whole, self.choice)) != 1:
            raise ValueError(f"give exactly one of {', '.join(OPEN_KINDS)}")
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"give the smaller number first, found {list(self.bounds)}")
        if self.log and self.log[0] <= 0:
            raise ValueError(f"log takes positive numbers, found {list(self.log)}")
        if self.default is not None and self.default not in self:
            raise ValueError(f"the default {self.default!r} is not among the values")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and the largest number; None for a choice."""
        return self.log or self.uniform or self.whole

    @property
    def start(self) -> Any:
        """The default, or else the first choice or the middle of the range."""
        if self.default is not None or not self.bounds:
            return self.default if self.default is not None else (self.choice or [None])[0]
        low, high = self.bounds
        middle = math.sqrt(low * high) if self.log else (low + high) / 2
        return int(middle) if self.whole else middle

    @property
    def extremes(self) -> list[Any]:
        """The ends of the range, or all choices."""
        return list(self.bounds or self.choice or ())

    def __contains__(self, value: object) -> bool:
        if self.bounds is None:
            return value in (self.choice or ())
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.bounds[0] <= value <= self.bounds[1]  # type: ignore[operator]


def parse_open(value: Any, place: str) -> OpenValue:
    """Read an open value; ``place`` is where it stands.

    Raises:
        ConfigError: It can't be opened, or is written wrongly.
    """
    if place.partition(".")[0] in _FIXED:
        raise ConfigError(f"'{place}' can't be open: trials are compared on the same data; give one value")
    if place == "distillation.soft_weight":
        raise ConfigError(
            "'distillation.soft_weight' can't be open; open 'distillation.alpha', which is 1 - soft_weight"
        )
    try:
        return OpenValue.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"open value '{place}': {explain(OpenValue, error)}") from error


def close(value: Any, place: str = "") -> tuple[Any, Space]:
    """Put each open value's start in its place, anywhere in a recipe's mapping.

    Args:
        value: The mapping, or a part of it.
        place: Where the part stands.

    Returns:
        The mapping that is an ordinary recipe's, and the open values by place.
    """
    if is_open(value):
        opened = parse_open(value, place)
        return opened.start, {place: opened}
    if not isinstance(value, dict | list):
        return value, {}
    parts = list(value.items() if isinstance(value, dict) else enumerate(value))
    closed = {key: close(part, f"{place}.{key}" if place else str(key)) for key, part in parts}
    space = {name: opened for _, found in closed.values() for name, opened in found.items()}
    plain = {key: part for key, (part, _) in closed.items()}
    return plain if isinstance(value, dict) else list(plain.values()), space


def value_at(content: Any, place: str) -> Any:
    """Return the value at a place of a recipe's mapping; None where there is none."""
    for key in place.split("."):
        try:
            content = content[int(key) if isinstance(content, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return content


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values at some places.

    Raises:
        ConfigError: There is no such place, or it doesn't take such a value.
    """
    content = recipe.model_dump(mode="json")
    for place, value in values.items():
        *owners, last = place.split(".")
        owner = value_at(content, ".".join(owners)) if owners else content
        if isinstance(owner, list) and last.isdigit() and int(last) < len(owner):
            owner[int(last)] = value
        elif isinstance(owner, dict):
            owner[last] = value
        else:
            raise ConfigError(f"the recipe has no '{place}' to be opened; correct the name")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"recipe '{recipe.name}' with {dict(values)}: {explain(Recipe, error)}") from error
