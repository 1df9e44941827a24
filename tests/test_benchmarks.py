"""Benchmarks in their small form: a GPU's on the processor, and commands that are disturbed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(name: str, *options: str, out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Run a script; return its record."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / f"{name}.md").read_text().startswith("# ")
    record: dict[str, dict[str, dict[str, float]]] = json.loads((out / f"{name}.json").read_text())
    return record


def test_what_a_gpu_is_asked_the_processor_answers(tmp_path: Path) -> None:
    record = run("gpu", "--device", "cpu", "--steps", "2", "--scenes", "2", "--crop", "64", out=tmp_path)
    assert set(record["trainings"]) == {"teacher", "student, live teacher", "student, cached teacher"}
    assert all(0 <= row["waiting"] < 1 for row in record["trainings"].values())
    assert record["correctness"]["pixels of the same class"] == 1
    assert record["correctness"]["largest difference of a probability"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to kill a group of processes with")
def test_commands_that_are_disturbed_go_on(tmp_path: Path) -> None:
    record = run("survival", "--attempts", "1", "--jobs", "train", "predict", "--faults", "killed", out=tmp_path)
    assert set(record["rows"]) == {"train: killed", "predict: killed"}
    assert all((row["attempts"], row["lost"]) == (1, 0) for row in record["rows"].values())


def imported(script: str) -> Any:
    """Return a script as a module."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(script)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize(("script", "plan"), [("proof", "Proof"), ("ancestors", "Ancestors")])
def test_every_planned_training_has_a_recipe(script: str, plan: str, tmp_path: Path) -> None:
    module = imported(script)
    given = Namespace(runs=tmp_path, data=tmp_path, weights=tmp_path, results=tmp_path)
    planned = getattr(module, plan)(given)
    cells = planned.cells if script == "proof" else module.CELLS
    # A bank's members follow from the groups of its data, which aren't here.
    recipes = [planned.recipe(cell) for cell in cells if getattr(cell, "member", None) is None]
    assert {recipe.data.name for recipe in recipes} >= {"dubai-aerial", "pascal-voc-2012"}


def finish(runs: Path, cell: str) -> None:
    """Write a cell's record into its run folder."""
    (runs / cell).mkdir(parents=True)
    (runs / cell / "judged.json").write_text(json.dumps({"cell": cell}))


def test_the_proof_reads_its_own_cells_only(tmp_path: Path) -> None:
    finish(tmp_path, "dubai/one")
    finish(tmp_path, "ancestors/voc/student")
    given = Namespace(runs=tmp_path, data=tmp_path, weights=tmp_path, results=tmp_path)
    assert imported("proof").Proof(given).results.records == {"dubai/one": {"cell": "dubai/one"}}


def test_the_proof_reads_what_other_processes_finish_meanwhile(tmp_path: Path) -> None:
    given = Namespace(runs=tmp_path, data=tmp_path, weights=tmp_path, results=tmp_path)
    results = imported("proof").Proof(given).results
    finish(tmp_path, "pilot/teacher")
    results.read()
    assert results.records == {"pilot/teacher": {"cell": "pilot/teacher"}}


@pytest.mark.parametrize(
    ("value", "over_seeds", "verdict"),
    [(5.2, (0.1, 10.3), "met"), (5.2, (-0.1, 10.5), "unsure"), (4.9, (0.1, 9.7), "missed")],
)
def test_a_goal_is_met_where_no_interval_holds_zero(
    value: float, over_seeds: tuple[float, float], verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = imported("proof_results")
    outcome = scripts.Outcome(value, "3 seeds each", over_seeds)
    monkeypatch.setattr(scripts, "GOALS", (scripts.Goal("gain, points", 5.0, lambda _: outcome),))
    (line,), tried = scripts.check(scripts.Results(tmp_path, tmp_path, ()))
    assert (line.split()[0], tried) == (verdict, True)
