"""Progress where no bar can move."""

from __future__ import annotations

import json
import re
import time

import pytest

from segshrink.cli import _console


def test_a_log_file_gets_lines_before_a_phase_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_console, "LINE_EVERY", 0.01)
    written = ""
    with _console.progress_bar("train teacher") as advance:
        advance(3, 10, "epoch 2")
        while "epoch 2" not in written:
            written += capsys.readouterr().err
            time.sleep(0.01)
    assert "train teacher" in written
    assert "3/10" in written
    assert "\x1b" not in written


def test_a_short_phase_gets_its_last_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    with _console.progress_bar("export") as advance:
        advance(1, 2)
        advance(2, 2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_phase_that_fails_before_it_begins_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="early"), _console.progress_bar("export"):
        raise ValueError("early")
    assert capsys.readouterr().err == ""


def test_a_quiet_command_shows_results_alone(segshrink, model, data, tmp_path) -> None:
    told = segshrink("evaluate", model, "--data", data)
    quiet = segshrink("evaluate", model, "--data", data, "--quiet")
    assert told.err
    assert (quiet.status, quiet.out, quiet.err) == (0, told.out, "")
    assert segshrink("evaluate", model, "--data", data, "-q", "--split", "test").sentence
    assert segshrink("evaluate", model, "--data", data).err == told.err


def test_json_is_the_same_as_in_the_files(segshrink, model, data, tmp_path) -> None:
    run = tmp_path / "run"
    found = json.loads(segshrink("evaluate", model, "--data", data, "-o", run, "--json").out)
    assert found["scores"] == json.loads((run / "evaluation.json").read_text())["scores"]
    page = json.loads(segshrink("report", run, "--json").out)
    assert page == json.loads((run / "report.json").read_text())


@pytest.mark.parametrize("verb", ["benchmark", "doctor", "evaluate", "inspect", "quantize", "report"])
def test_json_is_a_switch_everywhere(segshrink, verb) -> None:
    long, short = segshrink(verb, "--help"), segshrink(verb, "-h")
    assert long == short
    assert re.search(r"--json {2,}\S", long.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "m.onnx", "s.tif", "-o", "out", "--scale", "5"),
        ("predict", "m.onnx", "s.tif", "-o", "out", "--resolution", "abc"),
        ("predict", "m.onnx", "s.tif", "-o", "out", "--tile", "ten"),
        ("compress", "r.yaml", "-o", "out", "--budget", "latency"),
        ("compress", "r.yaml", "-o", "out", "--budget", "drop<=-101"),
        ("compress", "r.yaml", "-o", "out", "--budget", "drop<=1", "--threads", "1000000"),
        ("predict", "m.onnx", "s.tif", "-o", "out", "--threads", "1000000"),
        ("benchmark", "m.onnx", "--threads", "1,1000000"),
        ("export", "m", "-o", "out", "--format", "zip"),
        ("export", "m", "-o", "m.onnx", "--output", "colors"),
        ("prune", "m", "-o", "out"),
        ("prune", "m", "-o", "out", "--macs", "few"),
        ("doctor", "a=b"),
    ],
)
def test_wrong_values_have_status_two(segshrink, tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    result = segshrink(*arguments)
    assert result.status == 2
    assert result.sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["nothing", "student", "name=[", "trainer=1", "seed=x", "name.of=x"])
def test_wrong_overrides_have_status_two_and_wrong_files_one(segshrink, recipe, tmp_path, override) -> None:
    assert segshrink("train", recipe, "-o", tmp_path / "run", override).status == 2
    recipe.write_text(f"{recipe.read_text()}\ntrainer: 1\n")
    assert segshrink("train", recipe, "-o", tmp_path / "run").status == 1


@pytest.mark.parametrize("name", ["scene[/b].tif", "[bold]a[0].tif", ":house:.tif"])
def test_names_that_look_like_markup_are_shown_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with _console.progress_bar("predict") as advance:
        advance(1, 1, name)
    table = _console.empty_table(name, "b")
    table.add_row(name, "1")
    _console.out_console().print(table)
    shown = capsys.readouterr()
    assert shown.out.count(name) == 2
    assert name in shown.err
