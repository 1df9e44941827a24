"""``segshrink doctor`` on small real files: what it says, its exit status, and that its line mends the teacher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from segshrink.config import load_recipe

from .conftest import COLORS, Run

# A network that needs no training: the nearest of the classes' colors, as logits. What is planted is done around it.
MODULE = f"""
import torch
from torch import nn

COLORS = torch.tensor({list(COLORS.values())!r}, dtype=torch.float32)

class Nearest(nn.Module):
    def __init__(self, planted=""):
        super().__init__()
        self.planted = planted
        self.conv = nn.Conv2d(3, len(COLORS), 1)
        self.conv.weight.data = (COLORS * 2 / 1500).reshape(-1, 3, 1, 1)
        self.conv.bias.data = -COLORS.square().sum(1) / 1500

    def forward(self, images):
        x = images.float() * (255 if self.planted == "unit" else 1)
        x = nn.functional.avg_pool2d(x, 3, 1, 1)
        y = self.conv(x.flip(1) if self.planted == "bgr" else x)
        return y[:, [0, 2, 1]] if self.planted == "order" else y
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The source of a good teacher."""
    name = f"nearest_{abs(hash(tmp_path)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:Nearest"


def teachers(source: str, planted: str) -> str:
    return f"distillation.teachers={json.dumps([{'source': source, 'options': {'planted': planted}}])}"


def test_only_options_that_do_something_are_shown(segshrink: Run) -> None:
    shown = segshrink("doctor", "--help").out
    assert "--json" in shown
    assert "--overwrite" not in shown
    assert "--json-file" not in shown


def test_a_healthy_teacher_has_status_zero(
    segshrink: Run, networks: str, data: Path, recipe: Path, tmp_path: Path
) -> None:
    written = tmp_path / "found.json"
    result = segshrink("doctor", "--teacher", networks, "--data", data, "--images", 8, "--json", written)
    assert result.status == 0, result.out
    assert result.out.startswith("healthy  rectangles, 8 crops of 64 px")
    assert "fault" not in result.out
    found = json.loads(written.read_text())
    assert found["healthy"] is True
    assert [finding["kind"] for finding in found["findings"]] == ["score"]
    assert found["findings"][0]["numbers"]["mean_iou"] > 0.8
    with_recipe = segshrink("doctor", recipe, "--teacher", networks, "--images", 8)
    assert with_recipe.status == 0, with_recipe.out
    assert "shares of the gradient on a new student" in " ".join(with_recipe.out.split())


@pytest.mark.parametrize(("planted", "kind"), [("unit", "scaling"), ("bgr", "order"), ("order", "classes")])
def test_a_fault_has_status_one_and_a_line_that_fixes_it(
    segshrink: Run, networks: str, recipe: Path, planted: str, kind: str, tmp_path: Path
) -> None:
    written = tmp_path / "found.json"
    arguments = ("doctor", recipe, "--images", 8, "--json", written)
    sick = segshrink(*arguments, teachers(networks, planted))
    assert sick.status == 1
    lines = sick.out.splitlines()
    assert lines[0].startswith("1 fault: ")
    assert f"✗ fault  {kind}" in lines
    fix = json.loads(written.read_text())["findings"][0]["fix"]
    assert f"  → {fix}" in lines  # in one piece, however narrow the terminal is
    key, value = fix.split(": ", 1)
    cured = segshrink(*arguments, f"{key}={value}")
    assert cured.status == 0, cured.out
    (entry,) = load_recipe(recipe, [f"{key}={value}"]).distillation.teachers
    assert entry.options == {"planted": planted}


def test_a_students_run_knows_its_recipe_and_teacher(
    segshrink: Run, recipe: Path, networks: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    told = segshrink("distill", recipe, teachers(networks, "bgr"), "--out", run, "student.training.epochs=1")
    assert told.status == 0, told.err
    (line,) = [line for line in told.err.splitlines() if line.startswith("note: doctor: fault")]
    assert "adapter: {order: bgr}" in line
    result = segshrink("doctor", "--student", run, "--images", 6, "--trust")
    assert result.status == 1
    assert "✗ fault  order" in result.out
    assert "the student scores" in " ".join(result.out.split())
    mended = segshrink("doctor", teachers(networks, ""), "--student", run, "--images", 6)
    assert "✗ fault  order" not in mended.out


@pytest.mark.parametrize("where", ["config.yaml", "run.json"])
@pytest.mark.parametrize(
    "entry",
    [
        {"source": "strangers_code:network"},
        {"source": "hf:somebody/segformer"},
        {"source": "smp:Unet/resnet18", "weights": "imagenet"},
        {"source": "torchvision:lraspp_mobilenet_v3_large", "weights": "COCO_WITH_VOC_LABELS_V1"},
        {"source": "smp:Unet/resnet18", "weights": "w.safetensors", "options": {"encoder_weights": "imagenet"}},
    ],
    ids=lambda entry: entry["source"],
)
def test_a_strangers_run_runs_none_of_its_code(
    segshrink: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, entry: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "strangers_code", raising=False)
    (tmp_path / "strangers_code.py").write_text("open('was-run', 'w').close()")
    (tmp_path / "w.safetensors").write_bytes(b"")
    run = tmp_path / "run"
    run.mkdir()
    written = yaml.safe_load(recipe.read_text())
    if where == "config.yaml":
        written["distillation"] = {"teachers": [entry]}
    else:
        (run / "run.json").write_text(json.dumps({"role": "student", "teachers": [entry]}))
    written["data"] = str((recipe.parent / written["data"]).resolve())
    (run / "config.yaml").write_text(yaml.safe_dump(written))
    for given in ([], [recipe]):
        refused = segshrink("doctor", *given, "--student", run)
        if given and where == "config.yaml":
            assert "no teacher to examine" in refused.sentence  # the user's own recipe names none
            continue
        assert refused.status == 1
        assert entry["source"] in refused.sentence
        assert "--trust" in refused.sentence
    assert not (tmp_path / "was-run").exists()
    if entry["source"].startswith("strangers"):
        assert segshrink("doctor", "--student", run, "--trust").status == 1
        assert (tmp_path / "was-run").exists()


def test_distill_can_do_without_the_doctor_and_survives_it(
    segshrink: Run, recipe: Path, networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("segshrink.workflows.diagnose.diagnose_recipe", broken)
    short = ("student.training.epochs=1", "--teacher", networks)
    told = segshrink("distill", recipe, "--out", tmp_path / "one", *short)
    assert told.status == 0, told.err
    assert "note: doctor: couldn't look (out of memory)" in told.err.splitlines()
    quiet = segshrink("distill", recipe, "--out", tmp_path / "two", "--no-doctor", *short)
    assert quiet.status == 0, quiet.err
    assert "doctor" not in quiet.err


def test_bad_input_gets_one_sentence(segshrink: Run, recipe: Path, data: Path, networks: str, tmp_path: Path) -> None:
    assert "--data" in segshrink("doctor", "--teacher", networks).sentence
    assert "changes a recipe" in segshrink("doctor", "seed=3", "--data", data, "--teacher", networks).sentence
    assert "no teacher to examine" in segshrink("doctor", recipe).sentence
    assert "no teacher at" in segshrink("doctor", "--data", data, "--teacher", tmp_path / "none").sentence
    gone = segshrink("doctor", recipe, "--teacher", networks, "--student", tmp_path / "none", "--images", 4)
    assert "no model folder" in gone.sentence
    assert segshrink("doctor", recipe, "--images", 1).status == 2


def test_help_needs_no_torch() -> None:
    code = "import sys; from segshrink.cli import main; main(['doctor', '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: segshrink doctor " in done.stdout


def test_findings_are_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    source = Path(__file__).resolve().parents[2] / "src/segshrink/doctor"
    from segshrink.doctor.input_variants import KINDS

    kinds = {*KINDS, "balance", "silent", "collapsed", "student", "control", "score", "weak", "constant", "random"}
    kinds |= {"batch", "not-finite", "probabilities", "certain", "uncertain", "unknown-classes", "unjudged", "outgrown"}
    code = "\n".join(path.read_text(encoding="utf-8") for path in source.glob("*.py"))
    for kind in kinds:
        assert f'"{kind}"' in code, kind
        assert f"`{kind}`" in page, kind
    lines = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    assert lines["distillation"]
