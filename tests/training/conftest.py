from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink.config import Recipe

COLORS = {"Ground": (120, 90, 60), "Roof": (200, 40, 40), "Water": (30, 60, 200)}


def write_scene(folder: Path, name: str, rng: np.random.Generator, *, size: int = 96) -> None:
    """Colored rectangles under noise, as an image and a color mask."""
    mask = np.full((size, size, 3), COLORS["Ground"], np.uint8)
    for color in (COLORS["Roof"], COLORS["Water"]):
        row, col = rng.integers(0, size // 2, 2)
        mask[row : row + size // 3, col : col + size // 3] = color
    image = np.clip(mask + rng.normal(0, 25, mask.shape), 0, 255).astype(np.uint8)
    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Four training and two validation scenes of three classes, and networks that train in a second."""
    rng = np.random.default_rng(0)
    root = tmp_path / "scenes"
    for number in range(4):
        write_scene(root / "train", f"t{number}", rng)
    for number in range(2):
        write_scene(root / "val", f"v{number}", rng)
    tiny = {"id": "unet", "options": {"width": 8, "depth": 2}}
    training = {"epochs": 6, "precision": "32", "threads": 1, "learning_rate": 0.02}
    return Recipe.model_validate(
        {
            "name": "rectangles",
            "seed": 3,
            "data": {
                "name": "rectangles",
                "root": root,
                "images": "*/images/*.png",
                "masks": "*/masks/*.png",
                "classes": [{"name": n, "color": "#{:02X}{:02X}{:02X}".format(*c)} for n, c in COLORS.items()],
                "split": {"train": ["train"], "val": ["val"]},
            },
            "crops": {"size": 48, "batch_size": 4, "per_epoch": 32, "workers": 0},
            "teacher": {"model": tiny, "training": training},
            "student": {"model": tiny, "training": training},
        }
    )


def changed(recipe: Recipe, **changes: object) -> Recipe:
    raw = recipe.model_dump(mode="json")
    for path, value in changes.items():
        section = raw
        *keys, last = path.split("__")
        for key in keys:
            section = section[key]
        section[last] = value
    return Recipe.model_validate(raw)


@pytest.fixture
def short(recipe: Recipe) -> Recipe:
    """Epochs of two steps."""
    return changed(recipe, crops__per_epoch=8)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def stop_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, text: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress
