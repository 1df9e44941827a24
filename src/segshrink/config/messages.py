"""Turning what pydantic finds into one sentence that names the field, what was found and the remedy."""

from __future__ import annotations

import re
import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from segshrink.config.base import Strict
from segshrink.errors import nearest

# Steps that pydantic adds to a place to say which branch of a union it tried.
_BRANCH = re.compile(r"^(str|int|float|bool|path|(list|dict|tuple)\[.*\])$")


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """Say in one sentence what is wrong with a configuration.

    Args:
        kind: The section class that refused its input.
        error: What pydantic raised; an unknown key goes first, since it often explains a missing one.
    """
    problems = error.errors()
    first = next(
        (problem for problem in problems if problem["type"] in ("extra_forbidden", "invalid_key")), problems[0]
    )
    steps = _steps(first["loc"])
    field = ".".join(steps)
    if first["type"] == "extra_forbidden":
        owner = _section_at(kind, steps[:-1])
        known = list(owner.model_fields) if owner else []
        hint = nearest(steps[-1], known)
        keys = f" (keys: {', '.join(known)})" if hint.endswith("?") else ""  # a guess may be wrong
        return f"unknown key '{field}'{hint}{keys}"
    if first["type"] == "missing":
        return f"'{field}' is missing; add it"
    if first["type"] == "invalid_key":
        return f"the key {field} is not a text; put it in quotes"
    if first["type"] == "value_error":
        place = f"'{field}' is wrong: " if field else ""
        return f"{place}{first['msg'].removeprefix('Value error, ')}"
    same_place = [problem for problem in problems if _steps(problem["loc"]) == steps]
    wanted = " or ".join(dict.fromkeys(problem["msg"].removeprefix("Input should be ") for problem in same_place))
    if first["msg"].startswith("Input should be "):
        wanted = f"expected {wanted}"
    found = first["input"]
    unquoted = first["type"] == "string_type" and not isinstance(found, (list, dict))
    # An unquoted #3C1098 is a comment, so nothing is found; an unquoted 001 or no is a number or a truth value.
    remedy = "; put texts such as '#3C1098', '001' or 'no' in quotes" if unquoted else ""
    return f"'{field}' is wrong: {wanted}, found {_shown(found)}{remedy}"


def _shown(value: Any) -> str:
    """Show a value in little space, however large it is."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxlist, shortener.maxdict, shortener.maxstring = 2, 4, 4, 80
    return shortener.repr(value)


def _steps(place: tuple[int | str, ...]) -> list[str]:
    sections = {section.__name__ for section in Strict.__subclasses__()}
    return [str(step) for step in place if not (isinstance(step, str) and (_BRANCH.match(step) or step in sections))]


def _section_at(kind: type[BaseModel], steps: list[str]) -> type[BaseModel] | None:
    """Follow field names from ``kind`` to the section class that ``steps`` reach."""
    current: type[BaseModel] | None = kind
    for step in steps:
        if current is None:
            return None
        if step.isdigit():
            continue
        field = current.model_fields.get(step)
        current = _section_in(field.annotation) if field else None
    return current


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)
