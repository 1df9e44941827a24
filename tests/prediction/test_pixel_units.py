"""An adapter's scaling in other units than the images' pixels."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ConfigError
from segshrink.model_description import Normalization
from segshrink.models import build_model
from segshrink.prediction.pixel_units import check_units
from segshrink.teachers import open_teacher

CLASSES = ClassMap.build([("a", None, None), ("b", None, None), ("c", None, None)])
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
BYTES = np.arange(256, dtype=np.uint8).reshape(8, 32)


def scaling(mean: float, std: float) -> Normalization:
    return Normalization((mean,) * 3, (std,) * 3)


@pytest.mark.parametrize(
    ("mean", "std", "pixels", "lines"),
    [
        (0.485, 0.229, BYTES, ["123.675", "58.395"]),
        (0.5, 0.5, BYTES, ["127.5"]),
        (0.0, 0.25, BYTES, ["63.75"]),
        (0.485, 1.0, BYTES, ["123.675", "255"]),
        (0.5, 0.5, BYTES.astype(np.float32), ["127.5"]),
        (0.5, 0.25, BYTES.astype(np.uint16) * 40, ["5000", "2500", "32767.5"]),
        (123.675, 58.395, BYTES / np.float32(255), ["0.485", "0.229"]),
        (0.0, 255.0, BYTES / np.float32(255), ["'std: [1, 1, 1]'"]),
    ],
)
def test_other_units_are_refused_with_the_lines_to_write(
    mean: float, std: float, pixels: NDArray[Any], lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_units(scaling(mean, std), pixels, "net")
    assert all(line in str(caught.value) for line in ["net", *lines])


@pytest.mark.parametrize(
    ("mean", "std", "pixels"),
    [
        (0.0, 1.0, BYTES),  # raw
        (123.675, 58.395, BYTES),
        (110.0, 1.0, BYTES),  # mean taken off raw pixels
        (0.0, 255.0, BYTES),
        (0.485, 0.229, BYTES / np.float32(255)),
        (0.5, 0.5, BYTES // 200),  # masks as images: 0 and 1
        (0.3, 0.2, BYTES / np.float32(100)),  # reflectances with glints
        (1200.0, 800.0, BYTES.astype(np.uint16) * 40),
        (1200.0, 800.0, np.zeros((4, 4), np.float32)),  # no data
    ],
)
def test_sound_units_pass(mean: float, std: float, pixels: NDArray[Any]) -> None:
    check_units(scaling(mean, std), pixels, "net")
    check_units(None, pixels, "net")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One network as a run folder, a user's function and an ONNX file."""
    from segshrink.export.onnx import to_onnx

    model = build_model("unet", CLASSES, options={"width": 4, "depth": 2})
    model.save(tmp_path / "model")
    model.eval()
    onnx = to_onnx(model, outputs=("logits",), float_pixels=True)
    del onnx.metadata_props[:]
    (tmp_path / "net.onnx").write_bytes(onnx.SerializeToString())
    (tmp_path / "units_of_users.py").write_text("import torch\ndef make():\n    return torch.nn.Conv2d(3, 3, 1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return {"folder": str(tmp_path / "model"), "onnx": "onnx:net.onnx", "function": "units_of_users:make"}


@pytest.mark.parametrize("kind", ["folder", "onnx", "function"])
def test_every_kind_of_teacher_looks_at_its_images(sources: dict[str, str], kind: str) -> None:
    def opened(adapter: dict[str, Any]) -> Any:
        return open_teacher(TeacherSource(source=sources[kind], adapter=Adapter(**adapter)), CLASSES)

    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    scene = images[0].permute(1, 2, 0).numpy()
    wrong = opened(IMAGENET)
    for ask in (lambda: wrong.logits(images), lambda: wrong.scene_logits(scene, "scene")):
        with pytest.raises(ConfigError, match=re.escape("std: [58.395, 57.12, 57.375]")):
            ask()
    with pytest.raises(ConfigError, match="reflectances"):
        wrong.scene_logits(scene.astype(np.uint16) * 30, "scene")
    right = opened({name: [value * 255 for value in values] for name, values in IMAGENET.items()})
    assert right.logits(images).shape == (1, 3, 32, 32)
    assert wrong.scene_logits(scene / np.float32(255), "scene").shape == (3, 32, 32)
