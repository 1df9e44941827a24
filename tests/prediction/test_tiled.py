"""Images by tiles, in memory as in scenes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.errors import DataError, UsageError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import build_model
from segshrink.prediction import Predictor, SceneOptions, predict_scene
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.prediction.tiled import Tiling, choose_tiling, predict_tiles, rows_of_tiles
from segshrink.tiling import cosine_weights, grid
from segshrink.working_size import Resize


class Numbered:
    """Answers with the number of the tile, beside the pixels' own values."""

    def __init__(self) -> None:
        self.tiles = 0
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shapes.append(tiles.shape)
        numbers = np.arange(self.tiles, self.tiles + len(tiles), dtype=np.float32)
        self.tiles += len(tiles)
        planes = np.broadcast_to(numbers[:, None, None, None], (*tiles.shape[:3], 1))
        return np.concatenate([tiles, planes], axis=3).transpose(0, 3, 1, 2)


@settings(max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    step=st.integers(1, 12),
    overlap=st.integers(0, 10),
    align=st.sampled_from((1, 4)),
    batch=st.integers(1, 4),
)
def test_each_pixel_comes_from_the_tile_whose_middle_is_nearest(
    height: int, width: int, step: int, overlap: int, align: int, batch: int
) -> None:
    image = np.random.default_rng(0).random((height, width, 2), np.float32)
    answer = Numbered()
    tile = overlap + step
    found = predict_tiles(image, answer, tile=tile, overlap=overlap, align=align, batch=batch)
    np.testing.assert_array_equal(found[:2], image.transpose(2, 0, 1))
    assert max(shape[0] for shape in answer.shapes) <= batch
    windows = grid(height, width, tile=tile, overlap=overlap, align=align)
    chosen = [windows[int(number)] for number in found[2].ravel()]
    rows, cols = np.divmod(np.arange(height * width), width)
    for row, col, window in zip(rows, cols, chosen, strict=True):
        assert window.row <= row < window.row + window.height
        distance = abs(row + 0.5 - window.row - window.height / 2) + abs(col + 0.5 - window.col - window.width / 2)
        others = [
            abs(row + 0.5 - other.row - other.height / 2) + abs(col + 0.5 - other.col - other.width / 2)
            for other in windows
            if other.row <= row < other.row + other.height and other.col <= col < other.col + other.width
        ]
        assert distance <= min(others) + 1


def test_blended_tiles_are_their_weighted_mean() -> None:
    image = np.random.default_rng(0).random((40, 50, 1), np.float32)
    found = predict_tiles(image, Numbered(), tile=(16, 24), overlap=6, batch=3, blend="cosine")
    sums, totals = np.zeros((40, 50)), np.zeros((40, 50))
    for number, window in enumerate(grid(40, 50, tile=(16, 24), overlap=6)):
        weights = cosine_weights(window.height, window.width, overlap=6)
        sums[window.slices] += number * weights
        totals[window.slices] += weights
    np.testing.assert_allclose(found[1], sums / totals, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0], image[:, :, 0], rtol=1e-5)


def test_rows_of_tiles_decide_every_pixel_once() -> None:
    decided = np.zeros((90, 70), int)
    for row in rows_of_tiles(90, 70, tile=32, overlap=8, align=8):
        for tile in row:
            decided[tile.kept.slices] += 1
            rows, cols = tile.kept.slices_in(tile.window)
            assert 0 <= rows.start < rows.stop <= tile.window.height
            assert 0 <= cols.start < cols.stop <= tile.window.width
    assert (decided == 1).all()


@pytest.mark.parametrize(
    ("stride", "asked", "tiling"),
    [
        (16, {}, Tiling(512, 64, 16, 1)),
        (32, {}, Tiling(512, 128, 32, 1)),
        (48, {}, Tiling(528, 192, 48, 1)),
        (16, {"tile": 100}, Tiling(100, 50, 1, 1)),
        (16, {"tile": 128, "overlap": 20, "batch": 3}, Tiling(128, 20, 1, 3)),
        (1, {"tile": 64}, Tiling(64, 32, 1, 1)),
    ],
)
def test_tiles_suit_the_networks_stride(stride: int, asked: dict[str, int], tiling: Tiling) -> None:
    model = build_model("unet", ClassMap.build([("a", None, None)]), options={"width": 4, "depth": 2})
    description = model.description.__class__(**{**vars(model.description), "stride": stride})
    assert choose_tiling(description, runtime="onnxruntime", **asked) == tiling
    assert choose_tiling(description, runtime="torch").batch == 4
    assert choose_tiling(None, runtime="openvino") == Tiling(512, 64, 1, 1)


@pytest.mark.parametrize("numbers", [(0, 0), (8, 8), (8, -1), (8, 2, 1, 0)])
def test_senseless_tilings_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=f"overlap {numbers[1]}"):
        Tiling(*numbers)


def test_what_is_evaluated_is_what_is_deployed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("unet", ClassMap.build([(name, None, None) for name in "abc"]), options={"width": 4})
    image = np.random.default_rng(0).integers(0, 256, (150, 203, 3), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=150, width=203, count=3, dtype="uint8",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as dataset:  # fmt: skip
        dataset.write(image.transpose(2, 0, 1))
    backend = TorchBackend(model.eval(), precision="32")
    files = predict_scene(backend, tmp_path / "scene.tif", tmp_path / "out", SceneOptions(tile=64, batch=1))
    evaluated = Predictor(backend, tile=64, batch=1).predict_array(image)
    with rasterio.open(files.classes) as written:
        np.testing.assert_array_equal(written.read(1), evaluated.index)
    np.testing.assert_array_equal(evaluated.probabilities.argmax(axis=0), evaluated.index)


def test_tiles_are_what_the_network_sees_at_its_usual_size(classes_of_two: ClassMap) -> None:
    described = partial(ModelDescription, "unet", classes_of_two, 3, Normalization.named("half"), 32)
    whole = choose_tiling(described(), runtime="onnxruntime")
    halved = choose_tiling(described(resize=0.5), runtime="onnxruntime")
    assert (halved.tile, halved.overlap, halved.stride) == (2 * whole.tile, 2 * whole.overlap, 64)
    odd = choose_tiling(described(resize=0.37), runtime="onnxruntime")
    assert (odd.tile, odd.stride) == (1384, 1)
    one = choose_tiling(described(resize={"longest": 300}), runtime="onnxruntime")
    assert len(list(rows_of_tiles(5000, 7000, tile=one.tile, overlap=one.overlap))) == 1
    with pytest.raises(UsageError, match="takes no tiles"):
        choose_tiling(described(resize=(256, 256)), runtime="onnxruntime", tile=512)


@pytest.mark.parametrize("resize", [0.5, (48, 32)])
def test_a_scene_is_predicted_at_the_working_size_and_one_on_the_ground_at_a_share_only(
    classes_of_two: ClassMap, tmp_path: Path, resize: Resize
) -> None:
    torch.manual_seed(0)
    model = build_model("unet", classes_of_two, options={"width": 2, "depth": 2}).eval().with_resize(resize)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    predictor = Predictor(model)
    expected = predictor.backend.classify(pixels[None])[0]
    np.testing.assert_array_equal(predictor.predict_classes(pixels), expected)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    photo = predictor.predict_scene(tmp_path / "photo.png", tmp_path / "maps")
    np.testing.assert_array_equal(np.asarray(Image.open(photo.classes)), expected)
    place = {"transform": rasterio.Affine(0.5, 0, 0, 0, -0.5, 0), "crs": "EPSG:32640"}
    with rasterio.open(
        tmp_path / "ground.tif", "w", driver="GTiff", height=90, width=70, count=3, dtype="uint8", **place
    ) as file:
        file.write(pixels.transpose(2, 0, 1))
    if isinstance(resize, float):
        assert predictor.predict_scene(tmp_path / "ground.tif", tmp_path / "maps").classes.is_file()
    else:
        with pytest.raises(DataError, match=r"ground\.tif lies on the ground.*48 × 32"):
            predictor.predict_scene(tmp_path / "ground.tif", tmp_path / "maps")


@pytest.fixture
def classes_of_two() -> ClassMap:
    return ClassMap.build(["ground", "roof"])
