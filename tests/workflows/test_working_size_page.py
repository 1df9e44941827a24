"""What docs/init.md says about a working size, from a description to maps, on tiny scenes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segshrink
from segshrink.cli import main
from segshrink.errors import ConfigError
from segshrink.evaluation import Confusion

from .test_verbs import dataset_of, tiny_recipe

pytestmark = pytest.mark.usefixtures("quick_runs")
PAGE = (Path(__file__).parents[2] / "docs" / "init.md").read_text(encoding="utf-8").partition("## A working size")[2]
SCENE = (64, 64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's commands, typed where its files lie."""
    home = tmp_path_factory.mktemp("page")
    tiny_recipe(home)
    Image.open(home / "scenes" / "val" / "images" / "v0.jpg").save(home / "photo.jpg")
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for line in script.splitlines():
            _, *command = shlex.split(line, comments=True)
            assert main([*command, *(["--force"] if command[0] == "distill" else [])]) == 0, line
    return home


def test_the_run_holds_the_size_and_was_judged_at_that_of_the_images(home: Path) -> None:
    run = segshrink.RunFolder(home / "runs" / "half")
    for folder in (run, run.control, segshrink.RunFolder(run.path / "teacher-run")):
        assert segshrink.load_model(folder.path).description.resize == 0.5
    judged = run.evaluation()
    assert judged.pixels == 2 * SCENE[0] * SCENE[1]
    assert run.run().best_mean_iou == pytest.approx(judged.scores.mean_iou, abs=1e-3), "as while it was trained"
    model, confusion = segshrink.load_model(run.path).eval(), Confusion(3)
    for scene in segshrink.SceneStore(dataset_of(run.path).val, model.description.classes).samples:
        with Image.open(scene.image) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        store = segshrink.SceneStore([scene], model.description.classes)
        with torch.no_grad():
            confusion.update(model(pixels).argmax(dim=1)[0].to(torch.uint8), torch.from_numpy(np.array(store.mask(0))))
    assert np.abs(np.subtract(judged.confusion, confusion.matrix)).sum() <= 4


def test_the_file_and_the_map_are_of_the_images_size(home: Path) -> None:
    card = (home / "half.md").read_text()
    assert "0.5 of the image" in card
    with Image.open(home / "maps" / "photo.png") as found:
        assert found.size == SCENE[::-1]
    expected = segshrink.Predictor(home / "runs" / "half").predict_classes(np.asarray(Image.open(home / "photo.jpg")))
    assert (np.asarray(Image.open(home / "maps" / "photo.png")) == expected).mean() > 0.99


@pytest.mark.parametrize(("resize", "cached"), [("0.25", True), ("[32, 48]", False)])
def test_students_learn_at_it_with_and_without_a_cache(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, resize: str, cached: bool
) -> None:
    changes = [f"data.resize={resize}", f"distillation.teacher_cache={str(cached).lower()}"]
    recipe = segshrink.load_recipe(home / "recipe.yaml", changes)
    teacher = home / "runs" / "half" / "teacher-run" if cached else ()  # whose own working size is another
    result = segshrink.distill(recipe, out=tmp_path / "run", teacher=teacher, force=True)
    assert segshrink.load_model(result.folder).description.resize == recipe.data.resize
    assert segshrink.RunFolder(result.folder).evaluation().pixels == 2 * SCENE[0] * SCENE[1]
    assert "couldn't look" not in caplog.text, "the doctor sees it, too"


def test_a_teacher_of_another_working_size_wants_a_cache(home: Path, tmp_path: Path) -> None:
    recipe = segshrink.load_recipe(home / "recipe.yaml", ["data.resize=0.25"])
    with pytest.raises(ConfigError, match=r"works at 0.5 .*teacher_cache=true"):
        segshrink.distill(recipe, out=tmp_path / "run", teacher=home / "runs" / "half" / "teacher-run")
