"""What docs/tuning.md tells people to write and type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from segshrink.cli._app import application
from segshrink.config import load_open_recipe, load_recipe
from segshrink.tuning.study import OBJECTIVES, PRUNERS, SAMPLERS

from .test_verbs import tiny_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("python")
    assert "trials=40" in script
    exec(compile(script.replace("trials=40", "trials=1"), "docs/tuning.md", "exec"), {"__name__": "page"})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["student", "control"]
    assert printed[1].endswith("best-control.yaml")


def test_the_open_values_are_read(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path)
    opened, trained = blocks("yaml")
    own = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**own, **yaml.safe_load(opened)}))
    recipe, space = load_open_recipe(path)
    assert len(space) == 5
    assert recipe.student is not None
    assert (recipe.student.model.options["width"], recipe.student.training.epochs) == (8, 25)
    path.write_text(yaml.safe_dump({**own, **yaml.safe_load(trained)}))
    student = load_recipe(path).student
    assert student is not None
    assert (student.training.optimizer.name, student.training.schedule.name) == ("sgd", "PolynomialLR")


def test_the_commands_are_understood() -> None:
    root: Any = typer.main.get_command(application())
    for line in "".join(blocks("sh")).splitlines():
        _, verb, *rest = shlex.split(line)
        assert root.commands[verb].make_context(verb, rest).params


@pytest.mark.parametrize(("option", "names"), [("sampler", SAMPLERS), ("pruner", PRUNERS), ("objective", OBJECTIVES)])
def test_every_name_stands_there(option: str, names: dict[str, object]) -> None:
    (row,) = re.findall(rf"^\| `--{option}` \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(names)
