"""Every kind of teacher through the command line: opened, checked, evaluated, learned from and reported."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.config import Term
from segshrink.losses import build_terms
from segshrink.models import build_model, count_parameters, load_model
from segshrink.teachers import open_teacher
from segshrink.workflows.distill import unknown_classes

SHORT = ("student.training.epochs=1", "crops.per_epoch=4")
CODE = """
import torch
from torch import nn

class Colors(nn.Module):
    def __init__(self):
        super().__init__()
        self.colors = nn.Parameter(torch.tensor([[120.0, 90, 60], [200, 40, 40], [30, 60, 200]]))

    def forward(self, images):
        # The nearest of three colors.
        return -(images[:, None] - self.colors[None, :, :, None, None]).square().sum(2) / 2000
"""


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's figures take seconds; the terminal's table is read from the same folders."""
    monkeypatch.setattr(
        import_module("segshrink.workflows.distill"), "write_report", lambda runs: runs[0] / "report.html"
    )


def save_model(folder: Path, *names: str) -> Path:
    classes = ClassMap.build([(name, None, None) for name in names])
    build_model("unet", classes, options={"width": 4, "depth": 2}).save(folder)
    return folder


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def with_section(recipe: Path, **distillation: Any) -> Path:
    content = {**read(recipe), "distillation": distillation}
    recipe.write_text(yaml.safe_dump(content))
    return recipe


@pytest.mark.usefixtures("no_page")
def test_several_teachers_on_the_command_line(
    segshrink, recipe: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    (tmp_path / "nearest_color.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    arguments = ("distill", recipe, "-t", model, "-t", "nearest_color:Colors", "-o", out, *SHORT)
    result = segshrink(*arguments)
    assert result.status == 0, result.err
    # Teachers are opened twice, but what there is to say about them is said once.
    own = [record.getMessage() for record in caplog.records if record.name.startswith("segshrink")]
    assert [message for message in own if not message.startswith(("doctor: ", "no map.html"))] == [
        "nearest_color:Colors gets pixels as they are, such as 0 to 255; if it learned from scaled ones, say 'mean' "
        "and 'std' in its adapter",
        "nearest_color:Colors doesn't name its classes; they are taken for Ground, Roof, Water",
        "unet starts from random weights",
    ]
    record = read(out / "run.json")
    assert record["teachers"] == [{"source": str(model)}, {"source": "nearest_color:Colors"}]
    assert record["teacher"] == f"{model} + nearest_color:Colors"
    teacher = read(out / "teacher" / "evaluation.json")
    parameters = count_parameters(load_model(model)) + 9
    assert teacher["model"] == {"name": "teacher", "parameters": parameters}
    assert read(out / "teacher" / "profile.json")["parameters"] == parameters
    assert f"{parameters:,}" in result.out
    # The same command goes on where it stopped; another set of teachers is refused.
    (out / "evaluation.json").unlink()
    before = (out / "teacher" / "evaluation.json").stat().st_mtime_ns
    assert segshrink(*arguments, "--resume").status == 0
    assert (out / "teacher" / "evaluation.json").stat().st_mtime_ns == before
    other = segshrink("distill", recipe, "-t", "nearest_color:Colors", "-o", out, "--resume", *SHORT)
    assert other.status == 1
    assert f"learns from {model} + nearest_color:Colors, not from nearest_color:Colors" in other.sentence


@pytest.mark.usefixtures("no_page")
def test_a_recipes_teachers_with_other_class_names(segshrink, recipe: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "one", "soil", "house", "sand")
    save_model(tmp_path / "two", "roof", "other")
    with_section(
        recipe,
        teachers=[
            {"source": "one", "classes": {"Ground": ["soil", "sand"], "Roof": "house"}, "weight": 2},
            {"source": "two", "adapter": {"order": "bgr"}},
        ],
        flips="left-right",
    )
    out = tmp_path / "run"
    result = segshrink("distill", recipe, "-o", out, *SHORT)
    assert result.status == 0, result.err
    assert "note: the teacher doesn't know Water; the student learns it from labels only" in result.err
    assert not (out / "teacher-run").exists()
    record = read(out / "run.json")
    assert record["teachers"][0] == {
        "source": str(tmp_path / "one"), "classes": {"Ground": ["soil", "sand"], "Roof": "house"}, "weight": 2.0,
    }  # fmt: skip
    # A class that no teacher knows is never predicted by them.
    evaluation = read(out / "teacher" / "evaluation.json")
    assert sum(row[2] for row in evaluation["confusion"]) == 0
    assert evaluation["never_predicted"] == ["Water"]


def test_a_class_that_nobody_teaches_is_named(model: Path) -> None:
    classes = ClassMap.build([(name, None, None) for name in ("Roof", "Grass", "Ground", "Sky")])
    teacher = open_teacher(model, classes)
    soft = Term(name="pixel_kl")
    told = unknown_classes(teacher, build_terms([soft]))
    assert told is not None
    assert "doesn't know Grass and Sky and no loss term learns from labels, so nothing teaches them; say in" in told
    told = unknown_classes(teacher, build_terms([soft, Term(name="cross_entropy")]))
    assert told == "the teacher doesn't know Grass and Sky; the student learns them from labels only"
    assert unknown_classes(open_teacher(model, load_model(model).description.classes), build_terms([soft])) is None


@pytest.mark.usefixtures("no_page")
def test_classes_that_stand_for_nothing_and_win_are_named_before_learning(
    segshrink, recipe: Path, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_overlooked.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = {"source": "users_overlooked:Colors", "adapter": {"classes": ["Ground", "Tin roof", "Water"]}}
    source = f"distillation.teachers=[{json.dumps(teacher)}]"
    result = segshrink("distill", recipe, "--out", data.parent / "run", *SHORT, source)
    assert result.status == 0, result.err
    (notice,) = [line for line in result.err.splitlines() if "the teacher found Tin roof" in line]
    assert "Ground" not in notice


def test_a_folder_of_label_maps_teaches_by_the_scenes_names(segshrink, recipe: Path, data: Path) -> None:
    out, labels = data.parent / "run", data.parent / "labels"
    labels.mkdir()
    for path in data.parent.glob("*/masks/*.png"):
        with Image.open(path) as mask:
            colors = np.array(mask).astype(int)
        # Two thirds of each map are right, the lower third is always ground.
        index = np.where(colors[..., 0] > 150, 1, np.where(colors[..., 2] > 150, 2, 0)).astype(np.uint8)
        index[len(index) * 2 // 3 :] = 0
        Image.fromarray(index).save(labels / f"{path.parts[-3]}-{path.name}")
    classes = {"classes": ["Ground", "Roof", "Water"]}
    with_section(recipe, teachers=[{"source": "labels:scenes/labels", "adapter": classes}], teacher_cache=True)
    result = segshrink("distill", recipe, "-o", out, *SHORT)
    assert result.status == 0, result.err
    evaluation = read(out / "teacher" / "evaluation.json")
    assert 0.5 < evaluation["scores"]["accuracy"] < 1
    assert evaluation["model"]["parameters"] is None
    assert not (out / "teacher" / "profile.json").exists()
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    for word in ("Teacher", "Student"):
        assert word in result.out
    (labels / "val-v1.png").unlink()
    again = segshrink("distill", recipe, "-o", data.parent / "other", *SHORT)
    assert again.status == 1
    assert "no label map for 1 of 5 scenes" in again.sentence


@pytest.mark.usefixtures("no_page")
def test_a_folder_of_transformers_teaches_another(segshrink, recipe: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    size = {
        "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    }  # fmt: skip
    for name, labels in (("big", ["roof", "ground", "water"]), ("small", ["a", "b"])):
        config = transformers.SegformerConfig(**size, id2label=dict(enumerate(labels)))
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / name)
        transformers.SegformerImageProcessor().save_pretrained(tmp_path / name)
    with_section(recipe, teachers=[{"source": "hf:big"}])
    out = tmp_path / "run"
    changed = ('student.model={id: "hf:small", normalization: imagenet}', *SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = segshrink("distill", recipe, "-o", out, *changed)
    assert result.status == 0, result.err
    assert read(out / "model" / "config.json")["id"] == "hf:segformer"
    assert read(out / "run.json")["teachers"] == [{"source": f"hf:{tmp_path / 'big'}"}]
    # The student is whole in its folder.
    for name in ("big", "small"):
        (tmp_path / name).rename(tmp_path / f"{name}-gone")
    assert segshrink("evaluate", out).status == 0


def test_what_is_wrong_with_a_teacher_is_said_before_anything_is_trained(
    segshrink, recipe: Path, tmp_path: Path
) -> None:
    for source, words in (
        ("absent", "no teacher at absent; give a run folder"),
        ("smp:Unet/resnet18", "would have random weights"),
        ("hf:/absent", "no folder at /absent"),
        ("no_module_here:make", "there is no module no_module_here"),
        ("onnx:absent.onnx", "absent.onnx does not exist"),
        ("labels:absent", "absent"),
    ):
        result = segshrink("distill", recipe, "-t", source, "-o", tmp_path / "run")
        assert result.status == 1, source
        assert words in result.sentence
        assert not (tmp_path / "run" / "run.json").exists()
