"""What a study chooses from: a recipe's open values, or the usual ones where nothing is open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import optuna

from segshrink.config import Recipe, Space
from segshrink.config.search_space import parse_open, value_at, with_values
from segshrink.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from segshrink.training.run import Role

# The usual space: rates and weights so many times smaller to larger, epochs, crops and batches half to twice as many,
# temperatures up to this, and shares of the width.
_TIMES, _HOT, _WIDTHS = 10.0, 10.0, (0.5, 0.75, 1.0, 1.5)
# What only a student with a teacher uses.
_TAUGHT = ("distillation.", "crops.unlabeled_share")


def space_of(role: Role, recipe: Recipe, opened: Space, *, widths: bool) -> Space:
    """Return what the trials of a role choose from.

    Args:
        role: What is trained.
        recipe: The recipe, whose own values are tried first.
        opened: Its open values; none: the usual ones.
        widths: Whether a wider network costs something in one of the objectives, so that the width may be usual, too.

    Raises:
        ConfigError: An open value isn't used by the role, or the recipe doesn't take one of its values.
    """
    section = "teacher" if role == "teacher" else "student"
    content = recipe.model_dump(mode="json")
    own_terms = "distillation.terms" if content["distillation"]["terms"] else f"{section}.terms"
    unused = _TAUGHT if role != "student" else () if own_terms.startswith(section) else (f"{section}.terms",)
    space = {place: value for place, value in opened.items() if not place.startswith(unused)}
    if not opened:
        terms = own_terms if role == "student" else f"{section}.terms"
        usual = _usual(section, content, terms, taught=role == "student", widths=widths)
        space = {place: parse_open(value, place) for place, value in usual}
    for place, value in space.items():
        if place.partition(".")[0] in {"teacher", "student"} - {section}:
            raise ConfigError(f"trials train the {section}, so '{place}' can't be open; give one value")
        if value_at(content, place) not in value:
            raise ConfigError(
                f"the recipe's own '{place}' is {value_at(content, place)!r}, which is not among "
                f"{value.extremes}; widen them, or name another 'default' beside them"
            )
        for extreme in value.extremes:
            with_values(recipe, {place: extreme})
    if not space:
        remedy = ", or tune the student alone by --no-control" if role == "control" else ""
        raise ConfigError(
            f"only {', '.join(opened)} is open, which a {role} doesn't use; open something else, too{remedy}"
        )
    return space


def start(space: Space, recipe: Recipe) -> dict[str, Any]:
    """Return the parameters of the trial that is the recipe itself."""
    content = recipe.model_dump(mode="json")
    return {place: _label(value_at(content, place)) for place in space}


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Let a trial choose, and return the values by their places in the recipe."""
    for place, value in space.items():
        if value.whole:
            trial.suggest_int(place, *value.whole)
        elif value.bounds:
            trial.suggest_float(place, *value.bounds, log=value.log is not None)
        else:
            trial.suggest_categorical(place, [_label(choice) for choice in value.choice or ()])
    return chosen_values(trial.params, space)


def chosen_values(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return the values that a trial's parameters stand for, by their places in the recipe."""
    choices = {(place, _label(choice)): choice for place, value in space.items() for choice in value.choice or ()}
    return {place: choices.get((place, param), param) for place, param in params.items()}


def grid(space: Space) -> dict[str, list[Any]]:
    """Return all values of each parameter.

    Raises:
        UsageError: One has no end of them.
    """
    values: dict[str, list[Any]] = {}
    for place, value in space.items():
        if value.bounds and not value.whole:
            raise UsageError(f"'{place}' is a range, which a grid can't go through; give a choice, or another sampler")
        low, high = value.whole or (0, -1)
        values[place] = list(range(low, high + 1)) if value.whole else [_label(choice) for choice in value.choice or ()]
    return values


def _label(value: Any) -> Any:
    """Return a choice as Optuna keeps it: what is no plain value as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _usual(
    section: str, content: Any, terms: str, *, taught: bool, widths: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the open values of a recipe in which nothing is open; ``terms`` is where the losses are listed."""
    for name in ("learning_rate", "weight_decay"):
        place = f"{section}.training.{name}"
        yield place, _around(value_at(content, place)) or {"uniform": [0.0, 0.1]}
    epochs = value_at(content, f"{section}.training.epochs")
    yield f"{section}.training.epochs", {"int": [max(1, epochs // 2), epochs * 2]}
    size, batch = content["crops"]["size"], content["crops"]["batch_size"]
    yield "crops.size", {"choice": sorted({max(32, size // 2), size, size * 2})}
    yield "crops.batch_size", {"choice": sorted({max(1, batch // 2), batch, batch * 2})}
    distillation = content["distillation"]
    if taught and not distillation["terms"] and not distillation["preset"]:
        temperature = distillation["temperature"]
        yield "distillation.alpha", {"uniform": [0.0, 1.0]}
        yield "distillation.temperature", {"log": [min(1.0, temperature), max(_HOT, temperature)]}
    weights = [term["weight"] for term in value_at(content, terms)]
    if len(weights) > 1:
        yield from ((f"{terms}.{number}.weight", _around(weight)) for number, weight in enumerate(weights) if weight)
    model = content[section]["model"]
    if widths and (width := model["options"].get("width")) and model["encoder_weights"] is None:
        yield f"{section}.model.options.width", {"choice": sorted({type(width)(width * share) for share in _WIDTHS})}


def _around(value: float) -> dict[str, Any]:
    return {"log": [value / _TIMES, value * _TIMES]} if value else {}
