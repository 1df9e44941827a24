"""What docs/networks.md and docs/chips.md tell people to write and type."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import typer
import yaml

from segshrink.classes import ClassMap
from segshrink.cli._app import application
from segshrink.config import Teaching, adapter_of, load_adapter, load_recipe
from segshrink.models import build_model, load_model

DOCS = Path(__file__).parents[2] / "docs"
DATA = "{name: field, images: '*.jpg', masks: '*.png', classes: [ground, roof], split: {random: 0.2}}"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_files_are_read(tmp_path: Path) -> None:
    recipe, teachers, adapter = blocks("networks.md", "yaml")
    for name, text in (("field.yaml", DATA), ("recipe.yaml", recipe), ("net.onnx.yaml", adapter)):
        (tmp_path / name).write_text(text)
    student = load_recipe(tmp_path / "recipe.yaml").student
    assert student is not None
    assert (student.model.id, student.model.options) == ("my_nets:small", {"width": 16})
    (big,) = Teaching.model_validate(yaml.safe_load(teachers)["distillation"]).teachers
    assert (big.source, big.weights, big.options["classes"]) == ("my_nets:small", Path("big.ckpt"), 5)
    assert len(adapter_of(big).class_names() or ()) == 5
    said = load_adapter(tmp_path / "net.onnx.yaml")
    assert (len(said.class_names() or ()), said.size, said.fit) == (3, 512, "letterbox")


def test_the_code_makes_a_network_that_comes_back_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, opening, saving = blocks("networks.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    Path("my_nets.py").write_text(module)
    built = build_model("my_nets:small", ClassMap.build(["ground", "roof"]), options={"width": 16})
    built.save(Path("runs/student"))
    names: dict[str, Any] = {}
    exec(compile(opening, "docs/networks.md", "exec"), names)  # noqa: S102
    assert names["model"].description == built.description
    exec(compile(saving, "docs/networks.md", "exec"), names)  # noqa: S102
    assert load_model("big", trust=True).description.classes.names == ("ground", "roof")
    assert [port.name for port in onnxruntime.InferenceSession("student.onnx").get_inputs()] == ["images"]
    sys.modules.pop("my_nets")


@pytest.mark.parametrize("page", ["networks.md", "chips.md"])
def test_the_commands_are_understood(page: str) -> None:
    root: Any = typer.main.get_command(application())
    text = "".join(blocks(page, "sh")).replace("\\\n", "")
    lines = [shlex.split(line) for line in text.splitlines()]
    commands = [line[1:] for line in lines if line[0] == "segshrink"]
    assert commands
    for verb, *rest in commands:
        assert root.commands[verb].make_context(verb, rest).params
