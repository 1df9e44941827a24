"""A teacher that is there already stands in the first recipe as it does well on the folder's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import segshrink
from segshrink.config import load_recipe
from segshrink.errors import FileError


def folder(root: Path) -> Path:
    """Write images whose red tells the class."""
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        pixels = rng.integers(60, 200, (64, 64, 3), dtype=np.uint8)
        pixels[..., 0] = np.where(mask == 1, 200, 60) + rng.integers(0, 20, mask.shape)
        for kind, values in (("images", pixels), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / kind / f"{number}.png")
    (root / "classes.txt").write_text("water\nland\n")
    return root


def network(path: Path) -> Path:
    """Write a network that takes pixels from -1 to 1 and says land where red is above 0."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 0] = -8, 8
    node = helper.make_node("Conv", ["pixels", "weights"], ["logits"])
    shape = [1, 3, "height", "width"]
    graph = helper.make_graph(
        [node],
        "threshold",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, "height", "width"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_pixel_values_that_a_teacher_needs_are_found(tmp_path: Path) -> None:
    teacher = network(tmp_path / "teacher.onnx")
    made = segshrink.init(folder(tmp_path / "fields"), teacher=teacher, out=tmp_path / "out")
    source = load_recipe(made.recipe).distillation.teachers[0]
    assert source.source == str(teacher)
    assert yaml.safe_load(made.recipe.read_text())["distillation"]["teachers"] == [
        {"source": str(teacher), "adapter": {"mean": 127.5, "std": 127.5}}
    ]
    (doubt,) = [text for text in made.unsure if "teacher" in text]
    assert "with pixels from -1 to 1" in doubt
    assert f"# (?) {doubt}" in made.recipe.read_text()


def test_a_teacher_that_does_well_stands_there_as_it_is(tmp_path: Path) -> None:
    teacher = network(tmp_path / "teacher.onnx")
    (tmp_path / "teacher.onnx.yaml").write_text("{mean: 127.5, std: 127.5}")
    made = segshrink.init(folder(tmp_path / "fields"), teacher=teacher, out=tmp_path / "out")
    assert yaml.safe_load(made.recipe.read_text())["distillation"]["teachers"] == [str(teacher)]
    assert not any("teacher" in text for text in made.unsure)


def test_a_teacher_that_is_not_there_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nobody"):
        segshrink.init(folder(tmp_path / "fields"), teacher=tmp_path / "nobody.onnx", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
