"""Turning what pydantic finds into one sentence that names the field, what was found and the remedy."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segshrink.config.base import is_open
from segshrink.errors import nearest

# Steps that pydantic adds to a place to say which branch of a union it tried.
_BRANCH = re.compile(
    r"^(str|int|float|bool|path|(list|dict|tuple|literal|union)\[.*\]|constrained-\w+|(lax-or-strict|function-\w+)\b.*)$"
)
# What pydantic adds about the reading of a text; what was found is shown anyway.
_READING = re.compile(r", (unable to|got a number).*$")
_FEW_KEYS = 8


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
    # Of a union, the branch that got furthest into what was given is the one that was meant.
    branches = [
        problem for problem in problems if _steps(kind, problem)[: len(_steps(kind, first))] == _steps(kind, first)
    ]
    if first["type"] not in ("extra_forbidden", "invalid_key"):
        first = max(branches, key=lambda problem: len(_steps(kind, problem)))
    steps = _steps(kind, first)
    field = ".".join(steps)
    if first["type"] == "extra_forbidden":
        owner = _section_at(kind, steps[:-1])
        keys_of_owner = list(owner.model_fields) if owner else []
        hint = nearest(steps[-1], keys_of_owner)
        keys = f" (keys: {', '.join(keys_of_owner)})" if hint.endswith("?") else ""  # a guess may be wrong
        return f"unknown key '{field}'{hint}{keys}"
    if first["type"] == "missing":
        return f"'{field}' is missing; add it"
    if first["type"] == "invalid_key":
        return f"the key {field} is not a text; put it in quotes"
    if first["type"] == "value_error":
        place = f"'{field}' is wrong: " if field else ""
        return f"{place}{first['msg'].removeprefix('Value error, ')}"
    same_place = [problem for problem in problems if _steps(kind, problem) == steps]
    expected = " or ".join(dict.fromkeys(_wanted(kind, problem) for problem in same_place))
    value = first["input"]
    unquoted = first["type"] == "string_type" and not isinstance(value, (list, dict))
    # An unquoted #3C1098 is a comment, so nothing is found; an unquoted 001 or no is a number or a truth value.
    remedy = "; put texts such as '#3C1098', '001' or 'no' in quotes" if unquoted else ""
    if is_open(value):
        remedy = "; ranges and choices are for segshrink tune, whose best.yaml has one value"
    return f"'{field}' is wrong: expected {expected}, found {_shown(value)}{remedy}"


def _wanted(kind: type[BaseModel], problem: ErrorDetails) -> str:
    """Say what a field takes, in the words of its file."""
    context = problem.get("ctx", {})
    match problem["type"]:
        case "model_type" | "model_attributes_type" | "dict_type":
            section = _section_at(kind, _steps(kind, problem))
            names = list(section.model_fields) if section else []
            keys = ", ".join(names[:_FEW_KEYS]) + (", ..." if len(names) > _FEW_KEYS else "")
            return "'key: value' pairs" + (f" ({keys})" if keys else "")
        case "too_short":
            return f"at least {_counted(context['min_length'])}"
        case "too_long":
            return f"at most {_counted(context['max_length'])}"
        case "string_pattern_mismatch":
            return "a text of another form"
        case "path_type":
            return "a path"
    return _READING.sub("", problem["msg"].removeprefix("Input should be "))


def _counted(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def _shown(value: Any) -> str:
    """Show a value in little space, however large it is."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxlist, shortener.maxdict, shortener.maxstring = 2, 4, 4, 80
    return shortener.repr(value)


def _steps(kind: type[BaseModel], problem: ErrorDetails) -> list[str]:
    """Return the keys and numbers that lead to a place, without the names of our classes and of pydantic's branches."""
    steps: list[str] = []
    for step in problem["loc"]:
        is_section = isinstance(step, str) and any(step == section.__name__ for section in _sections_at(kind, steps))
        if not (is_section or (isinstance(step, str) and _BRANCH.match(step))):
            steps.append(str(step))
    return steps


def _section_at(kind: type[BaseModel], steps: list[str]) -> type[BaseModel] | None:
    """Follow field names from ``kind`` to the section class that ``steps`` reach."""
    return next(_sections_at(kind, steps), None)


def _sections_at(kind: type[BaseModel], steps: list[str]) -> Iterator[type[BaseModel]]:
    current: list[type[BaseModel]] = [kind]
    for step in steps:
        if not step.isdigit():
            fields = [field for section in current if (field := section.model_fields.get(step))]
            current = [section for field in fields for section in _sections_in(field.annotation)]
    yield from current


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
