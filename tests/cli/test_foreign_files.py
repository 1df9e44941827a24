"""No verb replaces or removes what this program didn't write, nor writes where another process is at work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

from segshrink.cli import main
from segshrink.cli._app import application
from segshrink.models import load_model

from .conftest import Run, description, learner, write_scene

REPORT = ("report.html", "report.json", "figures/loss.png")
RUN = (
    *("config.yaml", "run.json", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "profile.json"),
    "checkpoints/previous.ckpt",
    *("model/config.json", "model/model.safetensors", "evaluation.json", "evaluation/predictions/v0.png"),
    *REPORT[:2],
    "figures/mine.png",
)
MODEL = ("config.json", "model.safetensors", "notes.txt", "src/main.py")
QUANTIZED = ("fp32.onnx", "int8.onnx", "int8.xml", "int8.bin", "quantization.json", "model/config.json", "notes.txt")
# Verb → the names that it writes into OUT; some stand for all of their kind.
NAMES = {
    "train": RUN,
    "distill": (*RUN, "teacher/run.json", "teacher/evaluation/v0.jpg", "control/metrics.csv", "teacher-run/run.json"),
    "demo": (
        *(
            *RUN,
            "student.onnx",
            "prediction/scene.png",
            "prediction/scene.qml",
            "prediction/scene.overlay.jpg",
            "prediction/ready.png",
            "int8/int8.onnx",
        ),
        *("scenes/dataset.yaml", "scenes/train/images/mine.jpg", "control/run.json"),
    ),
    "evaluate": ("evaluation.json", "evaluation/notes.txt", "evaluation/v0.jpg", "evaluation/predictions/v0.png"),
    "report": REPORT,
    "export": ("m.onnx", "m.xml", "m.bin", "m.qgis.onnx", "m.html", "m.md", "m.stac.json", "m.qgis.stac.json"),
    "benchmark": ("benchmark.json", "benchmark.md", "benchmark.png"),
    "quantize": QUANTIZED,
    "prune": MODEL,
    "prune --recipe": (*RUN, "pruned/config.json", "teacher/run.json"),
    "compress": (
        *("candidates.json", "pareto.json", "pareto.png", "compress.md", "chosen.json", *REPORT),
        *("model.onnx", "model.xml", "model.bin", "model.md", "model.stac.json", "map.html"),
    ),
    "predict": ("v0.png", "v0.qml", "v0.overlay.jpg"),
    "doctor": ("findings.json",),
    "tune": (
        *("study.json", "best.yaml", "best-control.yaml", "journal.log", *REPORT),
        *("student/0000/run.json", "control/0001/notes.txt", "teacher/run.json"),
    ),
    "labels": ("val-v0.geojson",),
    "init": ("data.yaml", "recipe.yaml", "pairs.txt", "unlabeled.txt", "exclude.txt"),
}
FOREIGN = {".json": b'{"name": "mine"}', ".yaml": b"name: mine\n", ".html": b"<p>mine</p>", ".md": b"# mine\n"}


@dataclass(frozen=True)
class Material:
    """What verbs work with: a data set, a recipe, a trained run and an exported model."""

    data: Path
    recipe: Path
    run: Path
    onnx: Path

    def arguments(self, verb: str, out: Path) -> list[object]:
        """Return a command that writes into ``out`` or one of its files."""
        model, data = self.run / "model", ("--data", self.data)
        return {
            "train": ["train", self.recipe, "--out", out],
            "distill": ["distill", self.recipe, "--out", out, "--control"],
            "demo": ["demo", "--out", out],
            "evaluate": ["evaluate", self.onnx, *data, "--out", out],
            "report": ["report", self.run, "--out", out],
            "export": ["export", model, "--out", out / "m", "--format", "onnx,openvino,qgis,web"],
            "benchmark": ["benchmark", self.onnx, "--out", out],
            "quantize": ["quantize", model, *data, "--out", out],
            "prune": ["prune", model, "--out", out, "--width", 0.5, "--size", 32],
            "prune --recipe": ["prune", model, "--out", out, "--width", 0.5, "--recipe", self.recipe],
            "compress": ["compress", self.recipe, "--out", out, "--budget", "size<=9MB", "--families", "student"],
            "predict": ["predict", self.onnx, self.data.parent / "val" / "images", "--out", out],
            "doctor": ["doctor", self.recipe, "--teacher", self.run, "--json", out / "findings.json"],
            "tune": ["tune", self.recipe, "--out", out, "--trials", 1],
            "labels": ["labels", self.data, "--bank", self.run, "--split", "val", "--out", out],
            "init": ["init", self.data.parent, "--out", out],
        }[verb]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    for part, name in (("train", "t0"), ("train", "t1"), ("val", "v0")):
        write_scene(folder / "scenes", part, name, rng)
    data = folder / "scenes" / "dataset.yaml"
    data.write_text(yaml.safe_dump({**description(), "split": {"train": ["train"], "val": ["val"]}}))
    recipe = folder / "recipe.yaml"
    crops = {"size": 32, "batch_size": 4, "per_epoch": 8, "workers": 0}
    teacher, student = learner(8), learner(4)
    recipe.write_text(
        json.dumps({"name": "r", "data": str(data), "crops": crops, "teacher": teacher, "student": student})
    )
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    assert main(["export", str(folder / "run" / "model"), "-o", str(folder / "m.onnx"), "--no-card"]) == 0
    return Material(data, recipe, folder / "run", folder / "m.onnx")


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def put(folder: Path, name: str) -> None:
    """Let somebody's own file stand under a name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FOREIGN.get(path.suffix, b"mine"))


def test_every_verb_that_writes_is_looked_at() -> None:
    commands: typer.core.TyperGroup = typer.main.get_command(application())  # type: ignore[assignment]
    options = {
        name: {option for one in command.params for option in one.opts} for name, command in commands.commands.items()
    }
    writing = {name for name, found in options.items() if "--out" in found} - {"submit"}  # which only names it
    assert writing | {"doctor"} == {name.partition(" ")[0] for name in NAMES}


@pytest.mark.parametrize("verb", NAMES)
def test_a_folder_full_of_other_peoples_files_is_left_as_it_is(
    segshrink: Run, material: Material, tmp_path: Path, verb: str
) -> None:
    for name in sorted({name for names in NAMES.values() for name in names}):
        put(tmp_path / "out", name)
    before = content(tmp_path)
    result = segshrink(*material.arguments(verb, tmp_path / "out"))
    assert result.status == 1, result.out
    assert str(tmp_path / "out") in result.sentence
    assert content(tmp_path) == before


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb in NAMES for name in NAMES[verb]])
def test_one_file_of_somebody_else_is_enough_and_named(
    segshrink: Run, material: Material, tmp_path: Path, verb: str, name: str
) -> None:
    put(tmp_path / "out", name)
    before = content(tmp_path)
    result = segshrink(*material.arguments(verb, tmp_path / "out"))
    assert result.status == 1, result.out
    assert any(str(tmp_path / "out" / part) in result.sentence for part in (name, Path(name).parts[0]))
    assert content(tmp_path) == before


@pytest.mark.parametrize("verb", sorted({*NAMES} - {"prune --recipe", "predict", "doctor", "init", "tune", "labels"}))
def test_the_second_process_in_a_folder_refuses_and_names_the_first(
    segshrink: Run, material: Material, holder: tuple[Path, int], verb: str
) -> None:
    out, process = holder
    before = content(out.parent)
    result = segshrink(*material.arguments(verb, out))
    assert result.status == 1
    assert f"{out} is in use by process {process} on " in result.sentence
    assert content(out.parent) == before


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder that another process holds, and the process."""
    out = tmp_path_factory.mktemp("held") / "out"
    script = (
        "import sys, time; from pathlib import Path; from segshrink.folder_lock import claimed\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield out, process.pid
    process.kill()
    process.communicate()


def test_a_search_removes_no_model_that_it_did_not_choose(segshrink: Run, material: Material, tmp_path: Path) -> None:
    """Also one that this program wrote: it may be the teacher."""
    (tmp_path / "model.onnx").write_bytes(material.onnx.read_bytes())
    for name in ("model.pt", "model.py"):
        put(tmp_path, name)
    before = content(tmp_path)
    result = segshrink(*material.arguments("compress", tmp_path))
    assert str(tmp_path / "model.onnx") in result.sentence
    assert content(tmp_path) == before


def test_an_earlier_result_is_replaced_and_said_to_be(segshrink: Run, material: Material, tmp_path: Path) -> None:
    export = ["export", material.run / "model", "--out", tmp_path / "m.onnx"]
    for place, arguments in (("m.stac.json", export), ("pruned", material.arguments("prune", tmp_path / "pruned"))):
        told = [segshrink(*arguments) for _ in range(2)]
        assert [one.status for one in told] == [0, 0], told[1].err
        assert ["is replaced" in one.err and place in one.err for one in told] == [False, True]


def test_overwriting_replaces_two_files_and_keeps_the_rest(segshrink: Run, material: Material, tmp_path: Path) -> None:
    for name in MODEL:
        put(tmp_path / "out", name)
    result = segshrink(*material.arguments("prune", tmp_path / "out"), "--overwrite")
    assert result.status == 0, result.err
    assert load_model(tmp_path / "out").description.id == "unet"
    assert {name: value for name, value in content(tmp_path / "out").items() if value == b"mine"} == {
        "notes.txt": b"mine",
        "src/main.py": b"mine",
    }


def test_a_model_is_not_replaced_by_its_own_copy(segshrink: Run, material: Material, tmp_path: Path) -> None:
    before = content(material.run)
    for out in (material.run / "model", tmp_path / "link"):
        if out.name == "link":
            out.symlink_to(material.run / "model")
        assert segshrink(*material.arguments("prune", out)).status == 1
    assert content(material.run) == before


def test_scores_of_another_split_or_model_are_kept(segshrink: Run, material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segshrink(*material.arguments("evaluate", out)).status == 0
    assert segshrink(*material.arguments("evaluate", out)).status == 0
    before = content(out)
    result = segshrink(*material.arguments("evaluate", out), "--split", "train")
    assert "evaluation.json" in result.sentence
    assert "'val'" in result.sentence
    assert content(out) == before
    assert segshrink(*material.arguments("evaluate", out), "--split", "train", "--overwrite").status == 0
    assert json.loads((out / "evaluation.json").read_text())["split"] == "train"
    of_run = content(material.run)
    assert "another model" in segshrink(*material.arguments("evaluate", material.run)).sentence
    assert content(material.run) == of_run


def test_a_linked_folder_stays_a_link(segshrink: Run, material: Material, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert segshrink(*material.arguments("prune", tmp_path / "out")).status == 0
    assert (tmp_path / "out").is_symlink()
    assert set(content(tmp_path / "disk")) == {"config.json", "model.safetensors"}
