from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from scipy.special import softmax

from segshrink import build_model, export_onnx, predict_scenes
from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction import Predictor, SceneOptions, open_backend
from segshrink.prediction.average import AverageBackend
from segshrink.prediction.tiled import WHOLE

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


def described(box: Any, **changes: Any) -> Any:
    normalization = Normalization((0.0, 0.0), (1.0, 1.0))
    box.description = ModelDescription("box", box.classes, 2, normalization, 1, **changes)
    return box


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"band_names": ("red", "nir")}, {"band_names": ("nir", "red")}, r"\(nir, red\)"),
        ({"dtype": "uint8"}, {"dtype": "uint16"}, r"\(uint16 pixels\)"),
        ({"scaling": ((0.1, 0.0),) * 2}, {"scaling": ((0.1, 0.0), (0.1, 5.0))}, r"0\.1, 5\)"),
    ],
)
def test_models_of_other_pixels_have_no_mean(
    box_backend: Any, first: dict[str, Any], second: dict[str, Any], named: str
) -> None:
    unknown = described(box_backend(reach=1))
    parts = [described(box_backend(reach=1), **changes) for changes in (first, second)]
    with pytest.raises(ModelError, match=named):
        AverageBackend([unknown, *parts])
    average = AverageBackend([unknown, parts[0]])
    assert average.description == parts[0].description


def test_models_of_other_resolutions_map_at_the_one_that_is_asked_for(box_backend: Any, tmp_path: Path) -> None:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    kind = {"driver": "GTiff", "height": 40, "width": 40, "count": 2, "dtype": "uint8", **place}
    with rasterio.open(tmp_path / "scene.tif", "w", **kind) as scene:
        scene.write(np.full((2, 40, 40), 9, np.uint8))

    def mapped(*resolutions: float | None, options: SceneOptions | None = None) -> float:
        parts = [described(box_backend(reach=1), resolution=meters) for meters in resolutions]
        (result,) = predict_scenes(parts, [tmp_path / "scene.tif"], tmp_path / str(len(parts)), options)
        with rasterio.open(result.files.classes) as found:
            return float(found.res[0])

    assert mapped(None, 2.0, 2.05) == 2.0
    with pytest.raises(ModelError, match=r"0\.5 m .*10 m.*--resolution"):
        mapped(0.5, None, 10.0)
    assert mapped(0.5, 10.0, options=SceneOptions(resolution=1.0)) == 1.0


def test_the_mean_sees_tiles_as_large_as_any_model_asks_for(box_backend: Any) -> None:
    parts = [box_backend(reach=1) for _ in range(3)]
    parts[1].own_tile, parts[2].own_tile = 64, WHOLE
    assert [Predictor(AverageBackend(parts[:count])).tiling.tile for count in (2, 3)] == [64, WHOLE]
    assert Predictor(AverageBackend(parts), tile=32).tiling.tile == 32
