"""Every option of version 0.1 is understood, or the command line says what it is called now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

OPTIONS = json.loads((Path(__file__).parents[1] / "data" / "version-0.1" / "options.json").read_text())
# Arguments with which a verb ends at a file that isn't there, once its options are understood.
ARGUMENTS = {
    "demo": [],
    "doctor": ["nowhere.yaml"],
    "inspect": ["nowhere.yaml"],
    "train": ["nowhere.yaml"],
    "distill": ["nowhere.yaml"],
    "evaluate": ["nowhere", "--data", "nowhere.yaml"],
    "predict": ["nowhere.onnx", "nowhere.tif"],
    "report": ["nowhere"],
    "export": ["nowhere"],
    "benchmark": ["nowhere"],
    "compress": ["nowhere.yaml", "--budget", "drop<=3"],
    "prune": ["nowhere"],
    "quantize": ["nowhere", "--data", "nowhere.yaml"],
}
NEEDS_OUT = ("compress", "distill", "export", "predict", "prune", "quantize")


@pytest.mark.parametrize(
    ("verb", "option", "value"),
    [(verb, option, value) for verb, options in OPTIONS.items() for option, value in options.items()],
)
def test_an_old_option_is_understood(
    segshrink: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, option: str, value: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments = [verb, *ARGUMENTS[verb], option, *([value] if value is not None else [])]
    if verb == "demo":  # which makes all it needs, so that only a file in the way keeps it from running
        arguments = [verb, option, "file"] if option in ("--out", "-o") else [*arguments, "--out", "file"]
    elif verb in NEEDS_OUT and option not in ("--out", "-o"):
        arguments += ["--out", "out"]
    if verb == "prune" and option not in ("--width", "--depth", "--ratio", "--macs", "--parameters"):
        arguments += ["--width", "0.5"]
    if verb == "prune" and option in ("--control", "--resume"):
        arguments += ["--recipe", "nowhere.yaml"]
    result = segshrink(*arguments)
    assert result.status in (1, 2)
    assert "file" in result.sentence if verb == "demo" else "nowhere" in result.sentence
    assert not (tmp_path / "out").exists()
