"""Two classes by one output channel, through every verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open

from segshrink.colors import format_color

COLORS = {"Ground": (120, 90, 60), "Roof": (200, 40, 40)}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Roofs on the ground, and a student of one channel."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            mask = np.full((64, 64, 3), COLORS["Ground"], np.uint8)
            row, column = generator.integers(0, 32, 2)
            mask[row : row + 32, column : column + 32] = COLORS["Roof"]
            image = np.clip(mask + generator.normal(0, 15, mask.shape), 0, 255).astype(np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                folder = tmp_path / "scenes" / part / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    data = {
        "name": "roofs",
        "images": "*/images/*.png",
        "masks": "*/masks/*.png",
        "classes": [{"name": name, "color": format_color(color)} for name, color in COLORS.items()],
        "split": {"train": ["train"], "val": ["val"]},
    }
    (tmp_path / "scenes/dataset.yaml").write_text(yaml.safe_dump(data))
    training = {"epochs": 4, "learning_rate": 0.02, "precision": "32", "threads": 1}
    content = {
        "name": "roofs",
        "data": str(tmp_path / "scenes/dataset.yaml"),
        "crops": {"size": 32, "batch_size": 4, "per_epoch": 24, "workers": 0},
        "teacher": {"model": {"id": "unet", "options": {"width": 8, "depth": 2}}, "training": training},
        "student": {
            "model": {"id": "unet", "options": {"width": 4, "depth": 2}, "sigmoid": True},
            "training": training,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def output_channels(model: Path) -> int:
    with safe_open(model / "model.safetensors", "np") as tensors:
        return int(tensors.get_tensor("head.weight").shape[0])


def mean_iou(run: Path) -> float:
    return float(json.loads((run / "evaluation.json").read_text())["scores"]["mean_iou"])


def test_a_one_channel_student_of_a_two_class_teacher(segshrink, recipe: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "run", tmp_path / "scenes/dataset.yaml"
    images = sorted((tmp_path / "scenes/val/images").iterdir())
    result = segshrink("distill", recipe, "--out", out, "--control", "--force")
    assert result.status == 0, result.err
    channels = {run: output_channels(out / run / "model") for run in (".", "control", "teacher-run")}
    assert channels == {".": 1, "control": 1, "teacher-run": 2}
    # Roofs are told by their color alone, so chance (about 0.4) is left far behind.
    assert min(mean_iou(out), mean_iou(out / "control")) > 0.7

    onnx = tmp_path / "student.onnx"
    assert segshrink("export", out, "--out", onnx).status == 0
    scores = {}
    for name, model in (("torch", out), ("onnx", onnx)):
        evaluated = segshrink("evaluate", model, "--data", data, "--out", tmp_path / name)
        assert evaluated.status == 0, evaluated.err
        scores[name] = mean_iou(tmp_path / name)
        predicted = segshrink("predict", model, *images, "--out", tmp_path / f"{name}-masks")
        assert predicted.status == 0, predicted.err
    assert scores["torch"] == pytest.approx(mean_iou(out), abs=1e-3)
    assert scores["onnx"] == pytest.approx(mean_iou(out), abs=1e-3)
    for number in range(2):
        masks = [np.asarray(Image.open(tmp_path / f"{name}-masks/{number}.png")) for name in ("torch", "onnx")]
        assert len(np.unique(masks[0])) == 2
        assert (masks[0] == masks[1]).mean() > 0.999

    assert segshrink("report", out, "--out", tmp_path / "report.html").status == 0
    assert f"{mean_iou(out):.3f}"[:4] in (tmp_path / "report.html").read_text()


def test_a_two_class_student_of_a_one_channel_teacher(segshrink, recipe: Path, tmp_path: Path) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "run"
    assert segshrink("train", recipe, "--out", teacher, "teacher.model.sigmoid=true").status == 0
    assert output_channels(teacher / "model") == 1
    assert mean_iou(teacher) > 0.7
    distilled = segshrink(
        "distill", recipe, "--teacher", teacher, "--out", out, "student.model.sigmoid=false", "distillation.alpha=0"
    )
    assert distilled.status == 0, distilled.err
    assert output_channels(out / "model") == 2
    assert mean_iou(out) > 0.7


def test_three_classes_are_refused_before_anything_is_written(segshrink, recipe: Path, tmp_path: Path) -> None:
    data = yaml.safe_load((tmp_path / "scenes/dataset.yaml").read_text())
    data["classes"].append({"name": "Water", "color": "#1E3CC8"})
    (tmp_path / "scenes/dataset.yaml").write_text(yaml.safe_dump(data))
    result = segshrink("distill", recipe, "--out", tmp_path / "run")
    assert result.status == 1
    assert "'student.model.sigmoid' is for data of exactly two classes" in result.sentence
    assert "found 3 (Ground, Roof, Water)" in result.sentence
    assert not (tmp_path / "run").exists()
