from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.cli import main
from segshrink.colors import format_color

COLORS = {"Ground": (120, 90, 60), "Roof": (200, 40, 40), "Water": (30, 60, 200)}


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence of an error; fails when there is none, several, or a traceback."""
        told = [line for line in self.err.splitlines() if line.startswith(("error: ", "Error: "))]
        assert len(told) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return told[0]


Run = Callable[..., Result]


@pytest.fixture
def segshrink(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: ``segshrink("train", path, ...)``."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Result(status, written.out, written.err)

    return run


def write_scene(root: Path, part: str, name: str, rng: np.random.Generator, *, size: int = 64) -> None:
    """Colored rectangles under noise: an image and its color mask."""
    mask = np.full((size, size, 3), COLORS["Ground"], np.uint8)
    for color in (COLORS["Roof"], COLORS["Water"]):
        row, col = rng.integers(0, size // 2, 2)
        mask[row : row + size // 3, col : col + size // 3] = color
    image = np.clip(mask + rng.normal(0, 25, mask.shape), 0, 255).astype(np.uint8)
    for kind, pixels, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
        folder = root / part / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}.{suffix}")


def description() -> dict[str, object]:
    return {
        "name": "rectangles",
        "images": "*/images/*.jpg",
        "masks": "*/masks/*.png",
        "classes": [{"name": name, "color": format_color(color)} for name, color in COLORS.items()],
        "split": {"train": ["train"], "val": ["val"]},
    }


def write_data(home: Path) -> Path:
    """Write a data set of three training and two validation scenes; return its description."""
    rng = np.random.default_rng(0)
    root = home / "scenes"
    for number in range(3):
        write_scene(root, "train", f"t{number}", rng)
    for number in range(2):
        write_scene(root, "val", f"v{number}", rng)
    path = root / "dataset.yaml"
    path.write_text(yaml.safe_dump(description()))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The description of a data set; see ``write_data``."""
    return write_data(tmp_path)


def learner(width: int) -> dict[str, object]:
    return {
        "model": {"id": "unet", "options": {"width": width, "depth": 2}},
        "training": {"epochs": 2, "learning_rate": 0.01, "precision": "32", "threads": 1},
    }


def write_recipe(home: Path, data: Path) -> Path:
    """Write a recipe that trains in a second."""
    path = home / "recipe.yaml"
    content = {
        "name": "rectangles",
        "data": str(data),
        "crops": {"size": 32, "batch_size": 4, "per_epoch": 8, "workers": 0},
        "teacher": learner(8),
        "student": learner(4),
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def recipe(tmp_path: Path, data: Path) -> Path:
    """A recipe; see ``write_recipe``."""
    return write_recipe(tmp_path, data)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained model of the data set's classes."""
    from segshrink.models import build_model

    classes = ClassMap.build([(name, format_color(color), None) for name, color in COLORS.items()])
    folder = tmp_path_factory.mktemp("models") / "model"
    build_model("unet", classes, options={"width": 4, "depth": 2}).save(folder)
    return folder


@pytest.fixture(scope="session")
def onnx_file(model: Path) -> Path:
    """The same model as ONNX."""
    from segshrink.export import export_onnx
    from segshrink.models import load_model

    return export_onnx(load_model(model), model.with_name("model.onnx"))


def left_behind(folder: Path) -> list[str]:
    """Names of temporary files and folders that should be gone."""
    return [str(path) for path in folder.rglob(".segshrink-*")]


@pytest.fixture(autouse=True, scope="module")
def _quick_runs(quick_runs: None) -> None:
    """No command waits for timings and figures."""
