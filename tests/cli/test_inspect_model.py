"""``segshrink inspect`` of models: what can be tapped, and what is said of things that are neither model nor data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segshrink.models import count_parameters, load_model


def rows(text: str) -> dict[str, list[str]]:
    """The table's rows by role."""
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


def test_a_model_folder_lists_its_roles(segshrink, model: Path) -> None:
    result = segshrink("inspect", model)
    assert result.status == 0, result.err
    assert result.out.startswith("unet")
    assert f"{count_parameters(load_model(model)):,} parameters, 3 bands" in result.out
    assert "multiples of 2 pixels" in result.out
    assert "classes: Ground, Roof, Water" in result.out
    assert rows(result.out) == {
        "encoder": ["network.encoder.1", "8", "2", "128 × 128"],
        "decoder": ["network.decoder.0", "4", "1", "256 × 256"],
        "stage:0": ["network.encoder.0", "4", "1", "256 × 256"],
        "stage:1": ["network.encoder.1", "8", "2", "128 × 128"],
        "logits": ["(the model)", "3", "1", "256 × 256"],
    }


def test_a_run_folder_is_its_model(segshrink, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").write_text("name: not looked at\n")
    found = json.loads(segshrink("inspect", tmp_path / "run", "--json").out)
    assert found["id"] == "unet"
    assert found["classes"] == ["Ground", "Roof", "Water"]
    assert found["size"] == 256
    assert found["roles"][0] == {"name": "encoder", "path": "network.encoder.1", "shape": [8, 128, 128], "stride": 2}


def test_a_network_id_is_built(segshrink) -> None:
    result = segshrink("inspect", "mobile")
    assert result.status == 0, result.err
    assert "those of the data set" in result.out
    assert rows(result.out)["stage:3"] == ["network.encoder#2", "32", "8", "32 × 32"]
    assert rows(result.out)["logits"][1] == "C"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "moble",
            "moble is no file or folder, so it must be a network id: unknown model 'moble'; did you mean 'mobile'",
        ),
        ("smpp:Unet/resnet34", "error: unknown model 'smpp:Unet/resnet34'; known are: "),
        ("./nothing", "there is nothing at ./nothing; give a data set description (YAML), a run folder"),
        ("nothing.yaml", "can't read nothing.yaml"),
    ],
)
def test_what_is_neither_is_said_to_be(segshrink, source: str, words: str) -> None:
    result = segshrink("inspect", source)
    assert result.status == 1
    assert words in result.sentence


def test_folders_and_files_without_a_description(segshrink, data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "student.onnx"
    weights.write_bytes(b"weights")
    assert f"the folder {data.parent} holds no model; give a data set" in segshrink("inspect", data.parent).sentence
    assert "can't be loaded by ONNX Runtime" in segshrink("inspect", weights).sentence


def test_overrides_are_for_data_sets(segshrink, model: Path) -> None:
    assert "'root=x' is an override for a data set" in segshrink("inspect", model, "root=x").sentence


def test_help_says_both(segshrink) -> None:
    text = " ".join(segshrink("inspect", "--help").out.split())
    assert "Data set description (YAML)" in text
    assert "network id such as smp:Unet/resnet34" in text
    assert "features inside a model" in text
