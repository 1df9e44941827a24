from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segshrink.evaluation_records import EvaluationRecord
from segshrink.export import export_onnx
from segshrink.export.card import model_card
from segshrink.export.export import export
from segshrink.export.metadata import ExportedFile
from segshrink.run_records import ProfileRecord


def card_of(model, paths, outputs=("logits", "classes"), **measured):
    files = [ExportedFile(path, outputs) for path in paths]
    return model_card(model.description, files, name="s", parameters=1234, **measured)


def test_a_runs_numbers_are_told(small, tmp_path):
    evaluation = EvaluationRecord(
        data="dubai",
        split="val",
        leaking=True,
        classes=[{"name": name} for name in small.description.classes.names],
        scores={"mean_iou": 0.6, "iou": [0.9, 0.5, None, 0.4]},
        confusion=[[0] * 4] * 4,
        interval={"mean_iou": [0.55, 0.65]},
    )
    profile = ProfileRecord(
        macs=5 * 10**9,
        input=[1, 3, 512, 512],
        latency_ms={"median": 12.34},
        peak_memory_mb=400.6,
        machine={"cpu": "Some CPU", "threads": 2},
    )
    (tmp_path / "s.onnx").write_bytes(b"x" * 5000)
    card = card_of(small, [tmp_path / "s.onnx"], evaluation=evaluation, profile=profile)
    for told in ("60.0 (55.0, 65.0)", "12.3", "Some CPU, 2 thread(s)", "401", "5.00", "1,234", "s.onnx, 5 kB", "0.3 m"):
        assert told in card
    assert "Judged pixels lie beside training pixels" in card
    assert "| 1 | open \\| land | `#00FF00` | 50.0 |" in card
    assert "| 2 | roof | `" in card
    assert re.search(r"\| 2 \| roof \| `#\w+` \| – \|", card)


def test_without_numbers_it_says_so(small, tmp_path):
    (tmp_path / "s.onnx").write_bytes(b"x")
    card = card_of(small, [tmp_path / "s.onnx"])
    assert "Nothing yet" in card
    assert "| 0 | water | `#0000FF` |\n" in card


def test_the_program_on_the_card_runs(small, tmp_path, monkeypatch):
    path = export_onnx(small, tmp_path / "s.onnx")
    program = re.search(r"```python\n(.*?)```", card_of(small, [path]), re.DOTALL)[1]
    assert len(program.splitlines()) <= 10
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(program, encoding="utf-8")
    names = runpy.run_path("program.py")
    with torch.no_grad():
        expected = small(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    np.testing.assert_array_equal(names["classes"], expected)


def test_each_file_is_described_as_it_is(small, tmp_path):
    names = ("s.qgis.onnx", "s.xml", "s.bin", "s.onnx", "s.tflite")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    files = [
        ExportedFile(tmp_path / "s.qgis.onnx", ("probabilities",), float_pixels=True),
        ExportedFile(tmp_path / "s.xml"),
        ExportedFile(tmp_path / "s.onnx"),
        ExportedFile(tmp_path / "s.tflite", ("logits",)),
    ]
    card = model_card(small.description, files, name="s", parameters=12)
    rows = [part for part in card.split("\n\n") if "| File |" in part]
    assert [name for name in names if any(name in row for row in rows)] == list(names)
    for row in rows:
        assert ("float32, raw" in row) == ("qgis" in row)
        assert ("`probabilities`" in row) == ("qgis" in row)
        assert ("one square tile" in row) == ("tflite" in row)
        assert ("`classes`" in row) == any(f"| {name}" in row for name in ("s.xml", "s.onnx"))
    # One program for each way of use: Deepness's float pixels, bytes, and the tile.
    assert card.count("```python") == 2
    assert card.count("dtype=np.float32") == card.count("dtype=np.uint8") == 1
    assert "segshrink predict s.tflite" in card


def test_a_tflite_file_is_run_by_the_command_line(small, tmp_path):
    (tmp_path / "s.tflite").write_bytes(b"x")
    card = card_of(small, [tmp_path / "s.tflite"], outputs=("logits",))
    assert "segshrink predict s.tflite" in card
    assert "one square tile (1, side, side, 3) uint8" in card


def test_the_processor_that_an_8_bit_file_was_checked_on_is_named(small, tmp_path):
    (tmp_path / "s.onnx").write_bytes(b"x")
    files = [ExportedFile(tmp_path / "s.onnx")]
    options = {"name": "s", "parameters": 1}
    card = model_card(small.description, files, checked="Some CPU (avx2)", **options)
    assert "| Checked on | Some CPU (avx2) |" in card
    assert "Checked on" not in model_card(small.description, files, **options)


@pytest.mark.parametrize(("load", "busy", "told"), [(0.63, True, "too long"), (0.02, False, "of the cores |")])
def test_the_load_stands_beside_the_latency(small, tmp_path, load, busy, told):
    profile = ProfileRecord(
        latency_ms={"median": 31.0},
        input=[1, 3, 64, 64],
        machine={"cpu": "Example CPU", "threads": 2},
        load={"others": load, "busy": busy},
    )
    (tmp_path / "s.onnx").write_bytes(b"x")
    card = card_of(small, [tmp_path / "s.onnx"], profile=profile)
    (line,) = (line for line in card.splitlines() if line.startswith("| Latency"))
    assert f"{100 * load:.3g}\N{NO-BREAK SPACE}%" in line
    assert told in line


def test_the_card_and_the_item_say_the_working_size(small, tmp_path):
    files = export(small.with_resize(0.5), tmp_path / "small.onnx")
    card, item = (
        next(path for path in files.extra if path.suffix == suffix).read_text() for suffix in (".md", ".json")
    )
    assert "| Working size | 0.5 of the image's height and width |" in card
    assert "brings them to 0.5 of the image's height and width" in item
