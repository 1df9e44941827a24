"""What docs/keras.md tells people to write and type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from segshrink.classes import ClassMap
from segshrink.cli._app import application
from segshrink.config import load_adapter, load_recipe
from segshrink.models import build_model, count_parameters

PAGE = (Path(__file__).parents[2] / "docs" / "keras.md").read_text(encoding="utf-8")
DATA = "{name: field, images: '*.jpg', masks: '*.png', classes: [A, B, C, D, E, F], split: {random: 0.2}}"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_files_are_read(tmp_path: Path) -> None:
    adapter, recipe = blocks("yaml")
    (tmp_path / "field.yaml").write_text(DATA)
    for name, text in (("unet.keras.yaml", adapter), ("recipe.yaml", recipe)):
        (tmp_path / name).write_text(text)
    said = load_adapter(tmp_path / "unet.keras.yaml")
    assert (len(said.class_names() or ()), said.order, said.std) == (6, "bgr", 255)
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded.student is not None
    network = loaded.student.model
    classes = ClassMap.build(["A", "B", "C", "D", "E", "F"])
    assert f"{count_parameters(build_model(network.id, classes, options=network.options)):,} parameters" in recipe
    assert loaded.distillation.teachers[0].source == "keras:unet.keras"


def test_the_commands_are_understood() -> None:
    root: Any = typer.main.get_command(application())
    for line in "".join(blocks("sh")).splitlines():
        _, verb, *rest = shlex.split(line)
        assert root.commands[verb].make_context(verb, rest).params
