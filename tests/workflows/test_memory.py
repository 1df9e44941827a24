from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from segshrink import RunFolder, load_recipe, train
from segshrink.config import Recipe, as_recipe
from segshrink.data import Dataset
from segshrink.errors import ConfigError, TrainingError
from segshrink.workflows import memory
from segshrink.workflows.memory import fit_memory, measured_memory

from .test_verbs import tiny_recipe

pytestmark = pytest.mark.usefixtures("quick_runs")


def sizes(recipe: Recipe) -> tuple[int, int, int]:
    assert recipe.teacher is not None
    return recipe.crops.size, recipe.crops.batch_size, recipe.teacher.training.accumulate


@pytest.fixture
def opened(tmp_path: Path) -> Recipe:
    return load_recipe(tiny_recipe(tmp_path), ["crops={size: 160, batch_size: 4, per_epoch: 8, workers: 0}"])


def test_smaller_batches_come_before_smaller_crops(opened: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def take(recipe: Recipe, *, role: str) -> float | None:
        asked.append(sizes(recipe))
        size, batch, _ = asked[-1]
        return None if batch == 4 else 100 + batch * size**2 / 100

    monkeypatch.setattr(memory, "measured_memory", take)
    assert sizes(fit_memory(opened, role="teacher", limit_mb=700)) == (160, 2, 2)
    assert sizes(fit_memory(opened, role="teacher", limit_mb=250)) == (64, 2, 2)
    assert asked[2:] == [(160, 4, 1), (160, 2, 2), (160, 1, 4), (64, 4, 1), (64, 2, 2)]
    with pytest.raises(
        TrainingError, match=r"^batches of 1 crops of 64 pixels, 4 a step take 141 MB, more than .* 120 MB"
    ):
        fit_memory(opened, role="teacher", limit_mb=120)
    with pytest.raises(ConfigError, match="no 'student'"):
        fit_memory(opened.model_copy(update={"student": None}), role="control", limit_mb=120)


def test_what_a_training_takes_is_measured_in_a_process_of_its_own(opened: Recipe) -> None:
    measured = measured_memory(opened, role="teacher")
    assert measured is not None
    assert 100 < measured < 10_000
    wrong = opened.model_copy(update={"data": opened.data.model_copy(update={"images": "nothing/*.png"})})
    with pytest.raises(Exception, match=re.escape("nothing/*.png")):
        measured_memory(wrong, role="teacher")


def test_the_hungriest_network_of_a_bank_counts(opened: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def take(recipe: Recipe, role: str) -> float | None:
        assert recipe.teacher is not None
        assert not recipe.teacher.is_bank
        measured.append(recipe.teacher.model.options["width"])
        return None if measured[-1] > 64 else 100.0 * measured[-1]

    monkeypatch.setattr(memory, "_measured", take)
    members = ", ".join(f"{{id: unet, options: {{width: {width}}}}}" for width in (4, 64, 4, 8))
    bank = as_recipe(opened, [f"teacher.members=[{members}]"])
    assert measured_memory(bank, role="teacher") == 6400
    assert measured == [4, 64, 8]
    assert measured_memory(as_recipe(bank, [f"teacher.members=[{members.replace('8', '96')}]"]), role="teacher") is None


def test_the_largest_validation_image_is_scored_and_no_tracker_follows(
    opened: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Recipe, Dataset]] = []
    small, large = (tmp_path / f"scenes/val/images/{name}.jpg" for name in ("v0", "v1"))
    small.write_bytes(small.read_bytes() + bytes(10**6))
    for file in (large, tmp_path / "scenes/val/masks/v1.png"):
        Image.open(file).resize((128, 96), Image.Resampling.NEAREST).save(file)
    monkeypatch.setattr(memory, "train_network", lambda recipe, *, dataset, **_: trained.append((recipe, dataset)))
    tracked = as_recipe(opened, ["trackers=[mlflow]"])
    memory._train_briefly(tracked, "teacher", tmp_path / "run", SimpleNamespace(send=print), ())
    ((recipe, dataset),) = trained
    assert recipe.trackers == []
    assert [sample.image for sample in dataset.val] == [large]


def test_a_run_keeps_what_was_chosen_for_it(opened: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(recipe: Recipe, *, role: str) -> float:
        return 100.0 * recipe.crops.batch_size

    monkeypatch.setattr(memory, "measured_memory", take)
    out = tmp_path / "run"
    for resume in (False, True):
        train(opened, out=out, memory=250e6, resume=resume)
        assert sizes(RunFolder(out).recipe()) == (160, 2, 2)
        monkeypatch.setattr(memory, "measured_memory", None)  # a run that is resumed isn't measured again
