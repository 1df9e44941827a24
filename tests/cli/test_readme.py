"""What the README tells a newcomer to type is understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from segshrink.cli._app import _VERBS, application
from segshrink.config import Adapter, load_dataset, load_recipe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    return [line[1:] for line in lines if Path(line[0]).name == "segshrink"]


def test_the_descriptions_of_the_readme_are_valid(tmp_path: Path) -> None:
    data, recipe, teaching = blocks("yaml")
    (tmp_path / "field.yaml").write_text(data)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_dataset(tmp_path / "field.yaml").name == "my-fields"
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded.teacher is not None
    assert loaded.student is not None
    assert loaded.student.model.id == "mobile"
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(yaml.safe_load(recipe) | yaml.safe_load(teaching)))
    first, second = load_recipe(tmp_path / "taught.yaml").distillation.teachers
    assert (first.weight, first.classes["Other"]) == (2, ["earth", "building"])
    assert isinstance(second.adapter, Adapter)
    assert second.adapter.order == "bgr"


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: arguments[0])
def test_the_commands_of_the_readme_are_understood(arguments: list[str]) -> None:
    root: Any = typer.main.get_command(application())
    verb, *rest = arguments
    assert root.commands[verb].make_context(verb, rest).params


def test_the_readme_names_all_steps() -> None:
    named = {arguments[0] for arguments in commands()}
    assert named == {verb.__name__ for verb in _VERBS} - {"demo"}


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        if not name.startswith("docs/images/"):
            assert (ROOT / name).exists(), name
    for name in re.findall(r"configs/[\w./]+", README):
        assert (ROOT / name).exists(), name
