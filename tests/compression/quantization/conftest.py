from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from segshrink.config import Recipe
from segshrink.models import SegmentationModel, load_model

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


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Four training and two validation scenes of three classes, and a network that trains in a second."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("quantization") / "scenes"
    for number in range(4):
        write_scene(root / "train", f"t{number}", rng)
    for number in range(2):
        write_scene(root / "val", f"v{number}", rng)
    return Recipe.model_validate(
        {
            "name": "rectangles",
            "data": {
                "name": "rectangles",
                "root": root,
                "images": "*/images/*.png",
                "masks": "*/masks/*.png",
                "classes": [{"name": n, "color": "#{:02X}{:02X}{:02X}".format(*c)} for n, c in COLORS.items()],
                "split": {"train": ["train"], "val": ["val"]},
            },
            "crops": {"size": 48, "batch_size": 4, "per_epoch": 32, "workers": 0},
            "student": {
                "model": {"id": "unet", "options": {"width": 8, "depth": 2}},
                "training": {"epochs": 6, "precision": "32", "threads": 1, "learning_rate": 0.02},
            },
        }
    )


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A briefly trained run folder."""
    from segshrink.training import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    train(recipe, out=folder, role="control")
    return folder


@pytest.fixture(scope="session")
def model(run: Path) -> SegmentationModel:
    """Its model."""
    return load_model(run)


@pytest.fixture(scope="session")
def onnx_file(model: SegmentationModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model as ONNX."""
    from segshrink.export import export_onnx

    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "fp32.onnx")


@pytest.fixture(scope="session")
def tiles(recipe: Recipe) -> list[NDArray[np.uint8]]:
    """Calibration tiles of the data set."""
    from segshrink.data import calibration_tiles, open_dataset

    return calibration_tiles(open_dataset(recipe.data), count=4)


@pytest.fixture(scope="session")
def images(recipe: Recipe) -> list[NDArray[np.uint8]]:
    """The validation images, (H, W, 3)."""
    return [np.asarray(Image.open(path)) for path in sorted((recipe.data.root / "val" / "images").iterdir())]


@pytest.fixture(scope="session")
def spoiled(onnx_file: Path) -> tuple[bytes, tuple[str, str]]:
    """The model with two channels ten thousand times too large between two layers, and these layers' names.

    It computes the same, but one scale for all channels of that tensor leaves the other six none of the 8 bits.
    """
    from segshrink.compression.quantization.onnx_int8 import optimized

    proto = optimized(onnx_file.read_bytes())
    layers = [node for node in proto.graph.node if node.op_type == "Conv"]
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    first, second = layers[0], layers[1]
    weights = [np.array(numpy_helper.to_array(constants[name])) for name in (*first.input[1:3], second.input[1])]
    assert weights[2].shape[1] == len(weights[0]), "the second layer takes what the first gives"
    weights[0][:2] *= 10000
    weights[1][:2] *= 10000
    weights[2][:, :2] /= 10000
    for name, weight in zip((*first.input[1:3], second.input[1]), weights, strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(weight, name))
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    return proto.SerializeToString(), (first.name, second.name)
