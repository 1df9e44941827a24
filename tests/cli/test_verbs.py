"""The verbs on small real files, run through the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segshrink.cli import main
from segshrink.run_folder import RunFolder
from segshrink.workflows import demo

VERBS = (
    "demo",
    "doctor",
    "inspect",
    "labels",
    "train",
    "distill",
    "evaluate",
    "predict",
    "report",
    "export",
    "compress",
    "prune",
    "submit",
)
# The scenes are learned within seconds, or hardly at all.
WELL = "{epochs: 8, learning_rate: 0.02, validate_every: 8, precision: '32', threads: 1}"
BADLY = "{epochs: 1, learning_rate: 1.0e-6, precision: '32', threads: 1}"


def picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        opened.load()
        return opened.copy()


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from segshrink.cli import main\n"
        f"for verb in {VERBS!r}: assert main([verb, '--help']) == 0\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rasterio', 'matplotlib', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"Usage: segshrink {verb} " in done.stdout


def test_the_installed_program_answers() -> None:
    program = Path(sys.executable).with_name("segshrink")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("segshrink ")
    assert subprocess.run([program, "no-such-verb"], capture_output=True, check=False).returncode == 2


def test_help_and_usage_come_with_status_zero_and_two(segshrink) -> None:
    assert segshrink("train", "--help").status == 0
    assert segshrink().status == 2


def test_the_shell_completes_verbs_and_options(segshrink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SEGSHRINK_COMPLETE", "complete_bash")
    for words, completed in (("segshrink pre", "predict"), ("segshrink distill --con", "--control")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert segshrink().out.split() == [completed]


def test_train_writes_a_run_that_knows_everything(segshrink, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = segshrink("train", recipe, "--out", out, "teacher.training.epochs=1", "seed=5")
    assert result.status == 0, result.err
    for name in ("config.yaml", "metrics.csv", "model/config.json", "evaluation.json", "profile.json", "report.html"):
        assert (out / name).exists(), name
    assert json.loads((out / "run.json").read_text())["seed"] == 5
    assert "report.html" in result.out
    again = segshrink("train", recipe, "--out", out)
    assert again.status == 1
    assert "--resume" in again.sentence
    evaluated = segshrink("evaluate", out)
    assert evaluated.status == 0
    written = json.loads((out / "evaluation.json").read_text())["scores"]["mean_iou"]
    assert f"{written:.3f}" in evaluated.out


def test_distill_trains_measures_compares_and_resumes_without_doing_anything_twice(
    segshrink, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = segshrink("distill", recipe, "--out", out, "--control", "--force")
    assert result.status == 0, result.err
    roles = {
        folder: json.loads((out / folder / "run.json").read_text())["role"] for folder in (".", "teacher", "control")
    }
    assert roles == {".": "student", "teacher": "teacher", "control": "control"}
    for folder in (".", "teacher", "control"):
        assert (out / folder / "evaluation.json").exists()
    assert json.loads((out / "evaluation.json").read_text())["agreement"] is not None
    for word in ("Teacher", "Control", "Student"):
        assert word in result.out

    products = [path for name in ("*.json", "*.safetensors", "*.ckpt") for path in out.rglob(name)]
    before = {path: path.stat().st_mtime_ns for path in products if path.name != "report.json"}
    (out / "evaluation.json").unlink()  # as if interrupted while evaluating
    assert segshrink("distill", recipe, "--out", out, "--control", "--resume").status == 0
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {out / "evaluation.json"}

    profiles = {out / "profile.json", out / "control" / "profile.json", out / "teacher" / "profile.json"}
    busy = json.loads((out / "teacher" / "profile.json").read_text())
    busy["load"] = {"others": 0.63, "cores": 2, "seconds": 9.0, "busy": True}
    (out / "teacher" / "profile.json").write_text(json.dumps(busy))
    before = {path: path.stat().st_mtime_ns for path in products if path.name != "report.json"}
    assert segshrink("distill", recipe, "--out", out, "--control", "--resume").status == 0
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == profiles, "what a busy machine spoilt is measured again, all in turns"
    (out / "teacher" / "profile.json").unlink()
    assert segshrink("distill", recipe, "--out", out, "--control", "--resume").status == 0
    assert (out / "teacher" / "profile.json").exists()

    other = segshrink("distill", recipe, "--out", out, "--resume", "--teacher", out / "control")
    assert other.status == 1
    assert "teacher-run" in other.sentence


def test_distill_stops_before_the_student_and_goes_on_when_forced(
    segshrink, recipe: Path, model: Path, tmp_path: Path
) -> None:
    out, trained = tmp_path / "run", f"student.training={WELL}"
    stopped = segshrink("distill", recipe, "-t", model, "-o", out, "--control", trained)
    assert stopped.status == 1
    assert "--resume --force" in stopped.sentence
    control = RunFolder(out).control
    assert f"{control.evaluation().scores.mean_iou:.3f}" in stopped.sentence
    assert not RunFolder(out).has_run
    found = json.loads((out / "report.json").read_text())
    assert [model["role"] for model in found["models"]] == ["teacher", "control"]
    weights = (control.model / "model.safetensors").stat().st_mtime_ns
    forced = segshrink("distill", recipe, "-t", model, "-o", out, "--control", trained, "--resume", "--force")
    assert forced.status == 0, forced.err
    assert "little to distil" in forced.err
    assert RunFolder(out).run().role == "student"
    assert (control.model / "model.safetensors").stat().st_mtime_ns == weights


def test_distill_goes_on_where_the_teacher_leads(segshrink, recipe: Path, tmp_path: Path) -> None:
    trainings = f"teacher.training={WELL}", f"student.training={BADLY}"
    result = segshrink("distill", recipe, "-o", tmp_path / "run", "--control", *trainings)
    assert result.status == 0, result.err
    assert "little to distil" not in result.err


def test_distill_from_a_teacher_folder_with_another_student(
    segshrink, model: Path, recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = segshrink(
        "distill", recipe, "--teacher", model, "--student", "separable-unet", "--out", out,
        "student.training.epochs=1", "student.model.options={width: 0.125}",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert json.loads((out / "model/config.json").read_text())["id"] == "separable-unet"
    assert not (out / "teacher-run").exists()
    assert not (out / "control").exists()


def test_a_recipe_without_student(segshrink, recipe: Path, tmp_path: Path) -> None:
    content = json.loads(recipe.read_text())
    del content["student"]
    recipe.write_text(json.dumps(content))
    result = segshrink("distill", recipe, "-o", tmp_path / "run")
    assert result.status == 1
    assert "student" in result.sentence


def test_evaluate_prints_the_scores_that_it_writes(segshrink, model: Path, onnx_file: Path, data: Path) -> None:
    out = data.parent / "out"
    result = segshrink("evaluate", model, "--data", data, "--split", "train", "--out", out)
    assert result.status == 0, result.err
    scores = json.loads((out / "evaluation.json").read_text())["scores"]
    assert f"mIoU {scores['mean_iou']:.3f}" in result.out
    assert f"{scores['recall'][0]:.3f}" in result.out
    assert "3 images" in result.out
    # The same model in another runtime.
    other = segshrink("evaluate", onnx_file, "--data", data, "--split", "train")
    assert f"mIoU {scores['mean_iou']:.3f}" in other.out
    assert segshrink("evaluate", model, "--data", data, "--split", "test").status == 1
    assert "--data" in segshrink("evaluate", model).sentence


def test_predict_writes_classes_with_a_palette_and_an_overlay(
    segshrink, model: Path, onnx_file: Path, data: Path, tmp_path: Path
) -> None:
    images = sorted((data.parent / "val/images").glob("*.jpg"))
    result = segshrink("predict", model, *images, "-o", tmp_path / "out")
    assert result.status == 0, result.err
    assert segshrink("predict", onnx_file, images[0], "-o", tmp_path / "one.png").status == 0
    index = picture(tmp_path / "out/v0.png")
    assert index.mode == "P"
    assert index.getpalette()[:9] == [120, 90, 60, 200, 40, 40, 30, 60, 200]
    # torch may compute in bf16, so that a pixel here and there differs
    assert np.mean(np.array(index) == np.array(picture(tmp_path / "one.png"))) > 0.9
    assert picture(tmp_path / "one.overlay.jpg").size == index.size == (64, 64)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "predictions.sqlite", "v0.overlay.jpg", "v0.png", "v0.qml", "v1.overlay.jpg", "v1.png", "v1.qml",
    ]  # fmt: skip


def test_predict_refuses_to_write_over_what_it_reads(segshrink, onnx_file: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / folder / "x.png")
    image = tmp_path / "a/x.png"
    before = image.read_bytes()
    assert "overwrite" in segshrink("predict", onnx_file, image, "-o", tmp_path / "a").sentence
    assert "two folders" in segshrink("predict", onnx_file, image, tmp_path / "b/x.png", "-o", tmp_path / "c").sentence
    assert "folder" in segshrink("predict", onnx_file, image, tmp_path / "b/x.png", "-o", tmp_path / "c.png").sentence
    assert ".png" in segshrink("predict", onnx_file, image, "-o", tmp_path / "c.jpg").sentence
    assert image.read_bytes() == before


def test_predict_with_onnx_needs_no_torch(onnx_file: Path, data: Path, tmp_path: Path, model: Path) -> None:
    image = data.parent / "val/images/v0.jpg"
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'torchvision', 'safetensors', 'psutil'): sys.modules[name] = None\n"
        "from segshrink.cli import main\n"
        f"assert main(['predict', {str(onnx_file)!r}, {str(image)!r}, '-o', {str(tmp_path / 'x.png')!r}]) == 0\n"
        f"sys.exit(main(['export', {str(model)!r}, '-o', {str(tmp_path / 'x.onnx')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (tmp_path / "x.png").exists(), done.stderr
    assert done.returncode == 1
    assert "error: segshrink export needs an optional dependency: pip install " in done.stderr
    assert "[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_writes_a_file_that_runs_and_refuses_other_names(segshrink, model: Path, tmp_path: Path) -> None:
    result = segshrink("export", model, "-o", tmp_path / "deep/student.onnx")
    assert result.status == 0, result.err
    assert (tmp_path / "deep/student.onnx").stat().st_size > 1000
    assert ".onnx" in segshrink("export", model, "-o", tmp_path / "student.pt").sentence
    assert not (tmp_path / "student.pt").exists()


def test_inspect_shows_tables_and_json(segshrink, data: Path) -> None:
    result = segshrink("inspect", data)
    assert result.status == 0, result.err
    for word in ("train", "val", "Roof", "64 × 64 (5)", "ready to train"):
        assert word in result.out
    found = json.loads(segshrink("inspect", data, "--json").out)
    assert found["sound"] is True
    assert [part["samples"] for part in found["parts"]] == [3, 2]
    assert segshrink("inspect", data, "name=other").out.startswith("other")


def test_evaluate_scores_several_models_and_their_average(segshrink, model: Path, data: Path, tmp_path: Path) -> None:
    result = segshrink("evaluate", model, model, "--data", data, "--out", tmp_path / "both", "--json")
    assert result.status == 0, result.err
    scores = {name: evaluation["scores"] for name, evaluation in json.loads(result.out).items()}
    assert list(scores) == [f"1-{model.name}", f"2-{model.name}", "average"]
    first, second, average = scores.values()
    assert first == second == average, "the average of a model with itself"
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == sorted(scores)
    assert segshrink("report", *(tmp_path / "both").iterdir(), "-o", tmp_path / "both.html").status == 0
    assert "average" in segshrink("evaluate", model, model, "--data", data).out


def test_inspect_compares_the_layers_of_models(segshrink, model: Path) -> None:
    result = segshrink("inspect", model, "mobile", "--json")
    assert result.status == 0, result.err
    stages = json.loads(result.out)
    assert list(stages) == [str(model), "mobile"]
    assert {stage["stride"] for stage in stages["mobile"]} == {2, 4, 8, 16}
    text = segshrink("inspect", "mobile", "mobile").out
    assert "decoder, 1/8" in text
    assert "x=1" in segshrink("inspect", model, "mobile", "x=1").sentence


def test_report_of_several_runs(segshrink, model: Path, data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert segshrink("evaluate", model, "--data", data, "--out", tmp_path / name).status == 0
    result = segshrink("report", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "both.html")
    assert result.status == 0, result.err
    assert "<html" in (tmp_path / "both.html").read_text()
    assert str(tmp_path / "both.html") in result.out
    assert (tmp_path / "both.md").read_text().count("![") > 3
    shown = segshrink("report", tmp_path / "one", "--images", "nobody")
    assert shown.status == 2
    assert "nobody" in shown.sentence


def test_demo_on_a_few_tiny_scenes(segshrink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 1), ("VAL", 2), ("UNLABELED", 2), ("SIZE", 64)):
        monkeypatch.setattr(demo, name, value)
    whole = demo.demo_recipes
    short = {
        role: {"model": {"id": "unet", "options": {"width": 4, "depth": 2}}, "training": {"epochs": 1, "threads": 1}}
        for role in ("teacher", "student")
    }

    def tiny(data: Path, **arguments: Any) -> Any:
        recipes = whole(data, **arguments)
        return tuple(type(recipe).model_validate({**recipe.model_dump(), **short}) for recipe in recipes)

    monkeypatch.setattr(demo, "demo_recipes", tiny)
    out = tmp_path / "demo"
    result = segshrink("demo", "--out", out, "--seed", "3")
    assert result.status == 0, result.err
    pictures = ("prediction/scene.overlay.jpg", "prediction/ready.overlay.jpg")
    for name in ("report.html", "student.onnx", *pictures, "int8/int8.onnx"):
        assert (out / name).exists(), name
        assert name in result.out
    assert (out / "prediction" / "scene.png").exists()
    assert json.loads((out / "run.json").read_text())["images"] == {"labeled": 1, "unlabeled": 2, "val": 2}
    other = segshrink("demo", "--out", out, "--seed", "4")
    assert other.status == 1
    assert "another folder" in other.sentence


def test_the_demos_recipe_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    description = {
        "name": "any",
        "images": "*.jpg",
        "masks": "*.png",
        "classes": [{"name": "a"}, {"name": "b"}],
        "split": {"random": 0.5},
    }
    path.write_text(yaml.safe_dump(description))
    recipe, _ = demo.demo_recipes(path, seed=7, teacher=tmp_path)
    assert recipe.seed == 7
    assert recipe.teacher is not None
    assert recipe.student is not None
    assert recipe.data.root == tmp_path


def test_main_returns_a_status() -> None:
    assert main(["--version"]) == 0
