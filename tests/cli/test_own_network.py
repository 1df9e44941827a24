"""A student of the user's own code goes the whole way; a stranger's folder runs none of its code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml

from segshrink.cli import main
from segshrink.models import load_model

from .conftest import Run, write_data, write_recipe

CODE = """
from pathlib import Path
from torch import nn

Path("was-imported").touch()


class Small(nn.Module):
    stride = 4

    def __init__(self, classes, bands, width):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(bands, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, images):
        return self.head(self.encoder(images))


def small(classes, bands, width=8):
    return Small(classes, bands, width)


class Branching(Small):
    def forward(self, images):
        if images.mean() > 1e6:
            return self.head(self.encoder(images)) + 1
        return self.head(self.encoder(images))


def branching(classes, bands):
    return Branching(classes, bands, 8)


class Attending(Small):
    def __init__(self, classes, bands):
        super().__init__(classes, bands, 8)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, images):
        maps = self.encoder(images)
        tokens = maps.flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, maps.shape[2:]))
"""
STUDENT = {"id": "my_nets:small", "options": {"width": 16}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, _quick_runs: None) -> Iterator[Path]:
    """A working folder with the code, a recipe whose student it makes, and that student's run."""
    home = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "my_nets", raising=False)
        (home / "my_nets.py").write_text(CODE)
        recipe = write_recipe(home, write_data(home))
        content = json.loads(recipe.read_text())
        content["student"]["model"] = STUDENT
        recipe.write_text(json.dumps(content))
        assert main(["distill", "recipe.yaml", "--control", "--out", "run", "--force"]) == 0
        yield home
        sys.modules.pop("my_nets", None)


@pytest.fixture
def elsewhere(home: Path) -> Path:
    """The folder in a process that hasn't imported the code yet."""
    sys.modules.pop("my_nets", None)
    (home / "was-imported").unlink(missing_ok=True)
    return home


def test_a_run_keeps_the_name_of_the_function(home: Path) -> None:
    for folder in ("run", "run/control"):
        record = json.loads((home / folder / "model" / "config.json").read_text())
        assert (record["id"], record["options"]) == ("my_nets:small", {"width": 16})
        assert yaml.safe_load((home / folder / "config.yaml").read_text())["student"]["model"]["id"] == "my_nets:small"
        assert json.loads((home / folder / "evaluation.json").read_text())["model"]["parameters"] > 0
    assert (home / "run" / "report.html").is_file()


def test_finished_work_goes_on_without_being_asked(segshrink: Run, elsewhere: Path) -> None:
    result = segshrink("distill", "recipe.yaml", "--control", "--out", "run", "--force", "--resume")
    assert result.status == 0, result.err


def test_its_features_can_be_tapped(segshrink: Run, elsewhere: Path) -> None:
    by_name = json.loads(segshrink("inspect", "my_nets:small", "--json").out)
    (elsewhere / "was-imported").unlink()
    of_run = json.loads(segshrink("inspect", "run", "--trust", "--json").out)
    assert [role["path"] for role in by_name["roles"]] == [role["path"] for role in of_run["roles"]]
    assert of_run["roles"][0] == {"name": "encoder", "path": "network.encoder", "shape": [32, 64, 64], "stride": 4}
    assert (by_name["classes"], of_run["classes"]) == (None, ["Ground", "Roof", "Water"])
    term = '{name: attention_transfer, student: "encoder.5", teacher: encoder}'
    taught = segshrink(
        "distill", "recipe.yaml", "--out", "tapped", "--teacher", "run/teacher-run", "--force", "--no-doctor",
        f"distillation.terms=[{{name: pixel_kl}}, {term}]",
    )  # fmt: skip
    assert taught.status == 0, taught.err


def test_every_verb_that_takes_a_folder_asks_for_trust(segshrink: Run, elsewhere: Path) -> None:
    data, scenes = "scenes/dataset.yaml", "scenes/val/images"
    commands = {
        "inspect": ["run"],
        "evaluate": ["run", "--out", "evaluated"],
        "predict": ["run", scenes, "--out", "maps"],
        "export": ["run", "--out", "student.onnx"],
        "prune": ["run", "--width", 0.5, "--size", 32, "--out", "half"],
        "quantize": ["run", "--out", "int8", "--max-drop", 100, "--images", 2, "--runtime", "onnxruntime"],
        "benchmark": ["run", "--runtime", "torch", "--size", 32, "--batch", 1, "--threads", 1, "--runs", 5],
        "labels": [data, "--bank", "run", "--out", "doubts", "--split", "val"],
    }
    for verb, arguments in commands.items():
        refused = segshrink(verb, *arguments)
        assert refused.status == 1, verb
        assert "my_nets:small" in refused.sentence
        assert "--trust" in refused.sentence
        assert not (elsewhere / "was-imported").exists(), verb
    for verb, arguments in commands.items():
        result = segshrink(verb, *arguments, "--trust")
        assert result.status == 0, result.err
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 37, 51), dtype=np.uint8)
    session = onnxruntime.InferenceSession("student.onnx")
    (classes,) = session.run(["classes"], {"images": image})
    whole, half = load_model("run", trust=True), load_model("half", trust=True)
    assert classes.shape == (1, 37, 51)
    assert half.network.encoder[3].out_channels < whole.network.encoder[3].out_channels
    sys.modules.pop("my_nets")
    (elsewhere / "was-imported").unlink()
    for file in ("student.onnx", "int8/int8.onnx"):
        assert segshrink("predict", file, scenes, "--out", f"maps-{Path(file).stem}").status == 0
    assert segshrink("report", "run", "--out", "page.html").status == 0
    assert not (elsewhere / "was-imported").exists()


def test_a_teacher_of_another_function_takes_trust_in_the_recipe(segshrink: Run, elsewhere: Path) -> None:
    content = json.loads((elsewhere / "recipe.yaml").read_text())
    content["student"]["model"] = {"id": "unet", "options": {"width": 4, "depth": 2}}
    path = elsewhere / "plain.yaml"
    for trust in (False, True):
        content["distillation"] = {"teachers": [{"source": "run", "trust": trust}]}
        path.write_text(json.dumps(content))
        result = segshrink("distill", path, "--out", "plain", "--force", "--no-doctor", "student.training.epochs=1")
        assert result.status == (0 if trust else 1), result.err
        assert trust or "'trust: true'" in result.sentence
    # The run of that recipe may be a stranger's: what it trusts is not trusted here.
    sys.modules.pop("my_nets")
    (elsewhere / "was-imported").unlink()
    assert "--trust" in segshrink("doctor", "--student", "plain").sentence
    assert not (elsewhere / "was-imported").exists()


def test_a_strangers_recipe_and_run_call_nothing(segshrink: Run, elsewhere: Path, tmp_path: Path) -> None:
    """Neither in a student's run that is examined, nor in one that is resumed with another recipe."""
    assert "--trust" in segshrink("doctor", "--student", "run").sentence
    content = json.loads((elsewhere / "recipe.yaml").read_text())
    content["student"]["model"] = {"id": "unet", "options": {"width": 4, "depth": 2}}
    (tmp_path / "recipe.yaml").write_text(json.dumps({**content, "data": str(elsewhere / content["data"])}))
    resumed = segshrink("distill", tmp_path / "recipe.yaml", "--out", "run", "--resume", "--time", "1h", "--force")
    assert resumed.status == 1
    assert not (elsewhere / "was-imported").exists()


def test_what_a_verb_cant_follow_is_one_sentence(segshrink: Run, home: Path) -> None:
    from segshrink.classes import ClassMap
    from segshrink.models import build_model

    classes = ClassMap.build(["Ground", "Roof", "Water"])
    for name in ("branching", "Attending"):
        build_model(f"my_nets:{name}", classes).save(home / name)
    refused = segshrink("export", "branching", "--out", "branching.onnx", "--trust")
    assert refused.status == 1
    assert "my_nets:branching" in refused.sentence
    refused = segshrink("prune", "Attending", "--width", 0.5, "--size", 32, "--out", "smaller", "--trust")
    assert refused.status == 1
    assert "attention" in refused.sentence


def test_a_search_distills_it(segshrink: Run, elsewhere: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    result = segshrink(
        "compress", "recipe.yaml", "--budget", "size<=5MB", "--families", "student", "--teacher", "run/teacher-run",
        "--candidates", 1, "--size", 64, "--threads", 1, "--out", "small", "student.training.epochs=1",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert (elsewhere / "small" / "model.onnx").is_file()
