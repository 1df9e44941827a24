"""Two processes on the CPU learn what one does, and one of them alone writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segshrink.config import Recipe
from segshrink.errors import ConfigError
from segshrink.training import train

from .conftest import write_scene
from .test_resume import changed, record_of, rows_of

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of several recipes in one process and in two; see ``two_processes.py``."""
    home = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 3), ("more", 2)):
        for number in range(count):
            write_scene(home / "scenes" / part, f"{part}{number}", rng, size=64)
    recipes = home / "recipes.json"
    recipes.write_text(json.dumps({name: recipe_of(home, **options) for name, options in RECIPES.items()}))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", SCRIPT, recipes, home]
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "SEGSHRINK_CACHE": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return home


def recipe_of(home: Path, *, role: str, student: dict[str, Any], **sections: Any) -> dict[str, Any]:
    training = {"epochs": 2, "precision": "32", "threads": 1, "learning_rate": 0.01, **student.pop("training", {})}
    classes = {"Ground": "#785A3C", "Roof": "#C82828", "Water": "#1E3CC8"}
    return {
        "role": role,
        "seed": 3,
        "data": {
            "name": "rectangles",
            "root": str(home / "scenes"),
            "images": "*/images/*.png",
            "masks": "*/masks/*.png",
            "classes": [{"name": name, "color": color} for name, color in classes.items()],
            "split": {"train": ["train"], "val": ["val"]},
            "unlabeled": "more/images/*.png",
        },
        "crops": {"size": 32, "batch_size": 4, "per_epoch": 16, "workers": 0},
        "student": {"model": {"id": "unet", "options": {"width": 4, "depth": 2}}, "training": training, **student},
        **sections,
    }


TERMS = [{"name": name} for name in ("cross_entropy", "dice", "lovasz", "ohem_cross_entropy", "boundary")]
FEATURES = ("hint", "masked_generation", "pairwise_similarity", "intra_class_variation", "cross_image_relation")
RECIPES: dict[str, dict[str, Any]] = {
    # An average of the weights, gradients of two batches a step, an unlabeled stream, crops that are mixed.
    "labels": {
        "role": "control",
        "student": {
            "training": {"ema_decay": 0.7, "accumulate": 2},
            "terms": TERMS,
            "consistency": {"threshold": 0.35, "ema_decay": 0.5},
        },
        "augmentation": {"cutmix": 0.8},
    },
    # Features with adapters, one of which draws at random, of a teacher that is asked about blended crops.
    "features": {
        "role": "student",
        "student": {},
        "augmentation": {"mixup": 0.5},
        "distillation": {"terms": [{"name": "cross_entropy"}, *({"name": name} for name in FEATURES)]},
    },
    "cached": {
        "role": "student",
        "student": {"training": {"keep": "last", "optimizer": "sgd"}},
        "augmentation": {"cutmix": 0.8},
        "distillation": {
            "teacher_cache": True,
            "terms": [{"name": name} for name in ("cross_entropy", "pixel_kl", "dist", "channel_kl", "soft_jaccard")],
        },
    },
    # A network that stays what it is.
    "scores": {"role": "control", "student": {"training": {"learning_rate": 1e-30}}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_learn_what_one_does(runs: Path, name: str) -> None:
    one, two = runs / f"{name}-1", runs / f"{name}-2"
    losses = [json.loads((run / "losses.json").read_text()) for run in (one, two)]
    assert len(losses[0]) == 8
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    first, second = (load_file(run / "model/model.safetensors") for run in (one, two))
    assert first.keys() == second.keys()
    for weight, value in first.items():
        torch.testing.assert_close(second[weight], value, atol=1e-5, rtol=0)
    for before, after in zip(rows_of(one), rows_of(two), strict=True):
        assert before.keys() == after.keys()
        measured = {key for key in before if before[key]} - {"seconds", "val/mean_iou"}
        assert {key: float(after[key]) for key in measured} == pytest.approx(
            {key: float(before[key]) for key in measured}, abs=1e-5
        )


def test_scores_of_shared_scenes_are_those_of_all(runs: Path) -> None:
    """Two processes share three scenes."""
    one, two = (rows_of(runs / f"scores-{count}") for count in (1, 2))
    assert [row["val/mean_iou"] for row in one] == [row["val/mean_iou"] for row in two]
    assert 0 < float(one[0]["val/mean_iou"]) < 1


def test_batches_of_unequal_size_count_by_their_pixels(runs: Path) -> None:
    one, two = (json.loads((runs / f"unequal-{count}.json").read_text()) for count in (1, 2))
    assert len(one["losses"]) == 4
    for what in ("losses", "weights"):
        assert two[what] == pytest.approx(one[what], abs=1e-5)
    assert two["score"] == one["score"]


def test_what_the_user_trusts_is_trusted_by_all(runs: Path) -> None:
    trusted = {path.name: path.read_text() for path in runs.glob("trusted-*")}
    assert trusted == {"trusted-1-0": "True", "trusted-2-0": "True", "trusted-2-1": "True"}


def test_one_process_writes(runs: Path) -> None:
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in sorted(runs.glob("labels-*"))]
    assert names[0] == names[1]
    assert record_of(runs / "labels-2")["machine"]["device"] == "2 × cpu"
    assert record_of(runs / "labels-1")["machine"]["device"] == "cpu"


def test_synchronized_batch_norm_is_refused_on_the_cpu(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on GPUs only"):
        train(changed(recipe, teacher__training__sync_batchnorm=True), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
