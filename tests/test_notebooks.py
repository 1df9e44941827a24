"""docs/notebooks/colab.ipynb, run from top to bottom on tiny data, twice: as after a lost connection."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .workflows.test_verbs import tiny_recipe

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "colab.ipynb"

pytestmark = pytest.mark.usefixtures("quick_runs")


def test_the_colab_notebook_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []
    display = ModuleType("IPython.display")
    display.HTML, display.Image, display.display = str, str, shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("segshrink.workflows.distill.check_advantage", lambda *_, **__: None)  # there is none
    recipe = tiny_recipe(tmp_path)
    settings = (
        f"RECIPE, DATA, RUN, SETTINGS = {str(recipe)!r}, {str(tmp_path / 'scenes')!r}, {str(tmp_path / 'run')!r}, []"
    )
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    first, *cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [line.partition(" = ")[0] for line in first.splitlines()] == ["RECIPE", "DATA", "RUN", "SETTINGS"]
    printed = []
    for _ in range(2):
        names: dict[str, Any] = {}
        for cell in (settings, *cells):
            exec(compile(cell, "colab.ipynb", "exec"), names)  # noqa: S102
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == printed[1]  # nothing was trained again
    assert printed[0][0] == "not on Colab; folders are used as they are"
    assert "'student': " in printed[0][2]
    assert "<html" in shown[0]
    assert any("loss" in str(figure) for figure in shown[1:])
    assert (tmp_path / "run" / "student.onnx").is_file()
