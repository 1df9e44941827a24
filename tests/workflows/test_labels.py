"""A planted label error on its way from a bank through the decision of a person back into the masks."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import segshrink
from segshrink.cli import main
from segshrink.config import load_dataset
from segshrink.data import open_dataset
from segshrink.data.folds import unseen
from segshrink.errors import ConfigError, DataError, FileError, UsageError

from ..cli.conftest import COLORS, description, learner, write_scene

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text(encoding="utf-8")
# Rows and columns of train/t1 whose mask says Roof where the image shows Ground.
PLANTED = (slice(40, 60), slice(2, 18))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with field.yaml, runs/bank of three folds and runs/whole, a teacher that has seen every image."""
    root = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(2)
    for part, count in (("train", 3), ("val", 1)):
        for number in range(count):
            write_scene(root / "scenes", part, f"{part[0]}{number}", rng)
    shape = (64, 64, 3)
    mask = np.full(shape, COLORS["Ground"], np.uint8)
    mask[5:25, 30:55] = COLORS["Water"]
    Image.fromarray(np.clip(mask + rng.normal(0, 25, shape), 0, 255).astype(np.uint8)).save(
        root / "scenes/train/images/t1.jpg"
    )
    mask[PLANTED] = COLORS["Roof"]
    Image.fromarray(mask).save(root / "scenes/train/masks/t1.png")
    (root / "field.yaml").write_text(yaml.safe_dump({**description(), "root": "scenes"}))
    teacher: dict[str, Any] = learner(8)
    teacher["training"] |= {"epochs": 10, "learning_rate": 0.02, "validate_every": 10}
    crops = {"size": 32, "batch_size": 4, "per_epoch": 24, "workers": 0}
    content = {"name": "tiny", "data": "field.yaml", "crops": crops, "teacher": {**teacher, "folds": 3}}
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    segshrink.train(root / "recipe.yaml", out=root / "runs/bank")
    whole = segshrink.load_recipe(root / "recipe.yaml", ["teacher.folds=null", "teacher.training.epochs=1"])
    segshrink.train(whole, out=root / "runs/whole")
    return root


@pytest.fixture(autouse=True, scope="module")
def _quick_runs(quick_runs: None) -> None:
    """No run waits for timings and figures."""


def test_the_planted_error_is_found_decided_about_and_mended(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "labels",
        str(home / "field.yaml"),
        "--bank",
        str(home / "runs/bank"),
        "--out",
        str(tmp_path / "doubts"),
    ]
    assert main(arguments) == 0
    assert "t1" in capsys.readouterr().out
    regions = json.loads((tmp_path / "doubts/train-t1.geojson").read_text())
    first = next(feature for feature in regions["features"] if feature["properties"]["rank"] == 1)
    assert (first["properties"]["label"], first["properties"]["class"]) == ("Roof", "Ground")
    assert first["properties"]["area_px"] > 0.8 * 20 * 16
    first["properties"]["accepted"] = True
    (tmp_path / "doubts/train-t1.geojson").write_text(json.dumps(regions))

    assert main(arguments) == 1, "decisions aren't overwritten"
    assert "--overwrite" in capsys.readouterr().err

    overrides = [f"label_errors={{regions: {tmp_path / 'doubts'}, weight: 0.5}}"]
    dataset = segshrink.open_dataset(load_dataset(home / "field.yaml", overrides))
    names = [sample.name for sample in dataset.train]
    mended = segshrink.SceneStore(dataset.train, dataset.classes).mask(names.index("train-t1"))
    assert (mended[PLANTED] == 0).mean() > 0.8
    again = segshrink.find_label_errors(dataset.description, home / "runs/bank")
    assert not any(error.image == "train-t1" and error.label == "Roof" for error in again.errors)


def test_decisions_stay_until_others_have_replaced_them(home: Path, tmp_path: Path) -> None:
    decided = [tmp_path / name for name in ("train-t0.geojson", "train-t1.geojson", "train-t1.gpkg")]
    for path in decided:
        path.write_text("decisions")
    replace = partial(segshrink.find_label_errors, home / "field.yaml", out=tmp_path, border=5, overwrite=True)
    with pytest.raises(ConfigError, match="seen the ground"):
        replace(home / "runs/whole")
    with pytest.raises(DataError, match="coordinate reference system"):
        replace(home / "runs/bank", vectors="gpkg")
    assert [path.read_text() for path in decided] == ["decisions"] * 3
    images = {error.image for error in replace(home / "runs/bank").errors}
    assert "train-t1" in images
    assert {path.name for path in tmp_path.iterdir()} == {f"{image}.geojson" for image in images}


def test_each_image_is_judged_by_teachers_that_have_not_seen_it(home: Path) -> None:
    dataset = segshrink.open_dataset(load_dataset(home / "field.yaml"))
    teacher, kept = segshrink.open_out_of_fold([home / "runs/bank"], dataset, dataset.train)
    assert kept == dataset.train
    assert isinstance(teacher, segshrink.Bank)
    members = [list(teacher.members_for(sample.name)) for sample in kept]
    assert sorted(members) == [[0], [1], [2]]
    both, _ = segshrink.open_out_of_fold([home / "runs/bank", home / "runs/whole"], dataset, dataset.train)
    assert isinstance(both, segshrink.Bank)
    assert [list(both.members_for(sample.name)) for sample in kept] == members, "who has seen all is never asked"
    assert unseen(dataset, {dataset.train[0].name}, {"train-t0", "val-v0"}) == {"val-v0"}


def test_images_that_all_have_seen_are_left_out(home: Path) -> None:
    overlaps = ["split.overlaps=[[train/images/t0, train/images/t1, train/images/t2]]"]
    with pytest.raises(ConfigError, match="seen the ground of all 3 images"):
        segshrink.find_label_errors(load_dataset(home / "field.yaml", overlaps), home / "runs/bank")
    with pytest.raises(ConfigError, match="bank"):
        segshrink.find_label_errors(home / "field.yaml", home / "runs/whole")
    found = segshrink.find_label_errors(home / "field.yaml", home / "runs/whole", split="val")
    assert (found.images, found.seen) == (1, ())
    found = segshrink.find_label_errors(home / "field.yaml", home / "runs/bank/member-0")
    assert (found.images, found.seen) == (1, ("train-t1", "train-t2"))


def test_what_cannot_be_done_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="split"):
        segshrink.find_label_errors(home / "field.yaml", home / "runs/bank", split="all")
    with pytest.raises(FileError):
        segshrink.find_label_errors(home / "field.yaml", tmp_path / "nowhere")


def test_the_page_is_right(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, key = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0] for language in ("python", "yaml"))
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((home / "field.yaml").read_text()) | {"root": str(home / "scenes")}
    (tmp_path / "field.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "runs").symlink_to(home / "runs")
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "docs/labels.md", "exec"), names)  # noqa: S102
    assert names["found"].errors
    assert list((tmp_path / "doubts").glob("*.geojson"))
    (tmp_path / "doubts").rename(home / "scenes/doubts")
    (tmp_path / "field.yaml").write_text(yaml.safe_dump(content | yaml.safe_load(key)))
    description = load_dataset(tmp_path / "field.yaml")
    assert any(sample.regions for sample in open_dataset(description).train)
    assert description.label_errors is not None
    assert description.label_errors.weight == 0.3
