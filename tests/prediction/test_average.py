from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from segshrink import build_model, export_onnx, predict_scenes
from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.prediction import open_backend
from segshrink.prediction.average import AverageBackend

CLASSES = ClassMap.build(["land", "water", "road"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    tmp_path, found = tmp_path_factory.mktemp("models"), []
    for seed in range(2):
        torch.manual_seed(seed)
        model = build_model("unet", CLASSES, options={"width": 2, "depth": seed + 2}).eval()
        with torch.no_grad():
            model.network.head.weight *= 20  # type: ignore[union-attr, operator]
        found.append(export_onnx(model, tmp_path / f"{seed}.onnx"))
    return found


def test_the_mean_of_all_probabilities_decides(files: list[Path], box_backend: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    parts = [open_backend(file) for file in files]
    average = open_backend(files)
    expected = np.mean([softmax(part.run(images), axis=1) for part in parts], axis=0)
    np.testing.assert_allclose(softmax(average.run(images), axis=1), expected, atol=1e-6)
    np.testing.assert_array_equal(average.classify(images), expected.argmax(axis=1))
    assert average.description is not None
    assert average.description.stride == 4
    assert any((average.classify(images) != part.classify(images)).any() for part in parts)
    assert open_backend(files[:1]).name == parts[0].name
    with pytest.raises(ModelError, match="have no mean; give models of the same classes and bands"):
        AverageBackend([parts[0], box_backend(reach=1)])


def test_scenes_are_predicted_by_several_and_recognized_again(files: list[Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    out = tmp_path / "maps"
    (first,) = predict_scenes(files, [tmp_path / "scene.png"], out)
    assert not first.skipped
    found = np.asarray(Image.open(first.files.classes))
    expected = open_backend(files).classify(np.pad(pixels, ((0, 2), (0, 2), (0, 0)))[None])[0, :70, :90]
    assert (found == expected).mean() > 0.9  # borders are padded otherwise
    assert predict_scenes(files, [tmp_path / "scene.png"], out)[0].skipped
    alone = tmp_path / "alone"
    assert not predict_scenes(files[0], [tmp_path / "scene.png"], alone)[0].skipped
    assert predict_scenes(files[:1], [tmp_path / "scene.png"], alone)[0].skipped
