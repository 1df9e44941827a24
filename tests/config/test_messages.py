"""What a user reads about a wrong value: never a regular expression, nor one of our classes' names."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from segshrink.config import DatasetDescription, Recipe
from segshrink.config.base import Strict
from segshrink.config.messages import explain
from segshrink.config.teachers import Adapter

WRONG: tuple[Any, ...] = ("?", "", -1, 1.5, float("nan"), [], [[1]], {}, {"x": {}}, None, True, object())


def sections(kind: type[BaseModel] = Strict) -> Iterator[type[BaseModel]]:
    for section in kind.__subclasses__():
        yield section
        yield from sections(section)


SECTIONS = sorted(set(sections()), key=lambda section: section.__name__)


def test_the_sections_of_recipes_are_among_those_that_are_tried() -> None:
    assert {Recipe, DatasetDescription, Adapter} <= set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_wrong_values_are_told_in_the_users_words(section: type[BaseModel]) -> None:
    told = 0
    for field in section.model_fields:
        for value in WRONG:
            with pytest.raises(ValidationError) as caught:
                section.model_validate({field: value, "no such key": 1})
            problems = [problem for problem in caught.value.errors() if problem["loc"][:1] == (field,)]
            if not problems:
                continue  # this value is fine
            message = explain(section, SimpleNamespace(errors=lambda problems=problems: problems))
            told += 1
            assert field in message
            for odd in ("(?", "[^", "\\d", "\\w", "$'", "pydantic", *(other.__name__ for other in SECTIONS)):
                assert odd not in message.replace(repr(value), ""), message
    assert told or not section.model_fields
