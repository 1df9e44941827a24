from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segshrink import build_model, export_onnx
from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, DataError, ModelError
from segshrink.prediction import Predictor, SceneOptions, predict_scenes
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.prediction.scenes import stream
from segshrink.tiling import grid

quick = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def noise(height, width, *, bands=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


def untouched_by_tile_borders(height, width, *, tile, overlap, reach):
    """Pixels at least ``reach`` away from every tile border that isn't the image's, in every tile they lie in."""
    clean = np.ones((height, width), bool)
    for window in grid(height, width, tile=tile, overlap=overlap):
        rows = np.arange(window.row, window.row + window.height)
        cols = np.arange(window.col, window.col + window.width)
        row_ok = ((rows - window.row >= reach) | (window.row == 0)) & (
            (window.row + window.height - 1 - rows >= reach) | (window.row + window.height == height)
        )
        col_ok = ((cols - window.col >= reach) | (window.col == 0)) & (
            (window.col + window.width - 1 - cols >= reach) | (window.col + window.width == width)
        )
        clean[window.slices] &= row_ok[:, None] & col_ok[None, :]
    return clean


@quick
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(12, 40),
    overlap=st.integers(0, 11),
    batch=st.integers(1, 5),
    reach=st.integers(0, 3),
)
def test_tiled_equals_one_shot_away_from_tile_borders(box_backend, height, width, tile, overlap, batch, reach):
    backend = box_backend(reach=reach)
    image = noise(height, width)
    tiled = Predictor(backend, tile=tile, overlap=overlap, batch=batch).predict_logits(image)
    whole = backend.run(image[None])[0]
    clean = untouched_by_tile_borders(height, width, tile=tile, overlap=overlap, reach=reach)
    assert tiled.shape == whole.shape
    np.testing.assert_allclose(tiled[:, clean], whole[:, clean], atol=1e-3)
    if reach == 0:
        assert clean.all()


@quick
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(8, 40), value=st.integers(0, 255))
def test_constant_image_gives_constant_map(box_backend, height, width, tile, value):
    predictor = Predictor(box_backend(reach=2, padding="edge"), tile=tile, overlap=7, batch=2)
    prediction = predictor.predict_array(np.full((height, width, 2), value, np.uint8))
    assert np.unique(prediction.index).size == 1
    assert np.ptp(prediction.probabilities, axis=(1, 2)).max() < 1e-4


def test_tile_size_changes_few_classes(box_backend):
    smooth = np.kron(noise(20, 24, seed=3), np.ones((12, 12, 1), np.uint8))
    maps = [
        Predictor(box_backend(reach=3), tile=tile, overlap=16).predict_array(smooth).index for tile in (48, 80, 512)
    ]
    assert np.unique(maps[-1]).size == 3
    for other in maps[:-1]:
        assert (other == maps[-1]).mean() > 0.99


def test_batches_hold_equal_tiles_and_are_as_large_as_asked(box_backend):
    backend = box_backend(reach=0)
    Predictor(backend, tile=16, overlap=4, batch=3).predict_logits(noise(50, 33))
    windows = grid(50, 33, tile=16, overlap=4)
    assert {shape[1:] for shape in backend.shapes} == {(16, 16, 2)}
    assert [shape[0] for shape in backend.shapes[:-1]] == [3] * (len(backend.shapes) - 1)
    assert sum(shape[0] for shape in backend.shapes) == len(windows)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (7, 3)])
def test_image_within_a_tile_runs_once_as_it_is(box_backend, size):
    backend = box_backend(reach=1)
    prediction = Predictor(backend, tile=40, overlap=8).predict_array(noise(*size))
    assert backend.shapes == [(1, *size, 2)]
    assert prediction.index.shape == size
    assert prediction.index.dtype == np.uint8
    assert prediction.probabilities.shape == (3, *size)
    assert prediction.probabilities.dtype == np.float32


def test_classes_and_probabilities_agree_with_torch():
    logits = np.random.default_rng(1).normal(0, 30, (5, 131, 17)).astype(np.float32)
    logits[:, 5] = 2.5  # equal everywhere: the first class wins
    logits[3, 7] = 1e4  # would overflow an exponential
    expected = torch.softmax(torch.from_numpy(logits).double(), 0).numpy()
    index = most_likely(logits)
    np.testing.assert_array_equal(index, torch.from_numpy(logits).max(0).indices.numpy())
    assert (index[5] == 0).all()
    softmax_in_place(logits)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_read_only_images_are_fine(box_backend):
    image = noise(40, 40)
    predictor = Predictor(box_backend(reach=0), tile=16, overlap=2)
    expected = predictor.predict_array(image.copy()).index
    image.setflags(write=False)
    np.testing.assert_array_equal(predictor.predict_array(image).index, expected)


def test_memory_is_that_of_the_result():
    class Flat:
        name, bands, num_classes, runtime, description, own_tile = "flat", 1, 8, "numpy", None, None
        classes = ClassMap.build([(str(number), None, None) for number in range(8)])

        def run(self, images):
            return np.zeros((len(images), 8, *images.shape[1:3]), np.float32)

        def classify(self, images):
            return np.zeros(images.shape[:3], np.uint8)

    image = np.zeros((1200, 1200, 1), np.uint8)
    predictor = Predictor(Flat(), tile=128, overlap=16, batch=2)
    logits_and_weights = 9 * 4
    for predict, bytes_a_pixel in ((predictor.predict_array, 1.2 * logits_and_weights), (predictor.predict_classes, 2)):
        tracemalloc.start()
        try:
            predict(image)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < bytes_a_pixel * image.size


@pytest.mark.parametrize("blend", ["center", "cosine"])
def test_classes_alone_are_those_of_the_prediction(box_backend, blend):
    predictor = Predictor(box_backend(reach=2), tile=24, overlap=8, batch=3, blend=blend)
    image = noise(70, 55, seed=4)
    classes = predictor.predict_classes(image)
    assert classes.dtype == np.uint8
    assert len(np.unique(classes)) == 3
    np.testing.assert_array_equal(classes, predictor.predict_array(image).index)
    with pytest.raises(ModelError, match=r"1 band\(s\)"):
        predictor.predict_classes(noise(9, 9, bands=1))


def test_wrong_band_count_says_so(box_backend):
    with pytest.raises(ModelError, match=r"1 band\(s\), but model 'box' takes 2"):
        Predictor(box_backend(reach=0)).predict_array(noise(9, 9, bands=1))


@pytest.mark.parametrize("shape", [(0, 5, 2), (5, 5), (5, 0, 2)])
def test_what_is_no_image_says_so(box_backend, shape):
    with pytest.raises(DataError, match="at least one pixel"):
        Predictor(box_backend(reach=0)).predict_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("options", [{"tile": 0}, {"overlap": 512}, {"overlap": -1}, {"batch": 0}])
def test_senseless_options_say_so(box_backend, options):
    with pytest.raises(ConfigError, match="must"):
        Predictor(box_backend(reach=0), **options)


class Labeled:
    """What matters of an xarray.DataArray."""

    def __init__(self, values, dims):
        self.values, self.dims = values, dims


def test_arrays_with_named_axes_are_understood(box_backend):
    predictor = Predictor(box_backend(reach=1), tile=16, overlap=4)
    image = noise(20, 30)
    expected = predictor.predict_array(image).index
    for values, dims in (
        (image, ("y", "x", "band")),
        (image.transpose(2, 0, 1), ("band", "y", "x")),
        (image.transpose(2, 0, 1), ("channel", "lat", "lon")),
    ):
        np.testing.assert_array_equal(predictor.predict_array(Labeled(values, dims)).index, expected)
    with pytest.raises(DataError, match="time, y, x, band"):
        predictor.predict_array(Labeled(image[None], ("time", "y", "x", "band")))
    with pytest.raises(ModelError, match=r"1 band\(s\)"):
        predictor.predict_array(Labeled(image[:, :, 0], ("y", "x")))


def test_scenes_are_predicted_with_the_predictors_tiles(box_backend, tmp_path):
    backend = box_backend(reach=1)
    image = noise(50, 70)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=50, width=70, count=2, dtype="uint8",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as dataset:  # fmt: skip
        dataset.write(image.transpose(2, 0, 1))
    done = []
    files = Predictor(backend, tile=24, overlap=8, batch=2).predict_scene(
        tmp_path / "scene.tif", tmp_path / "out", progress=lambda *told: done.append(told)
    )
    assert files.classes == tmp_path / "out" / "scene.tif"
    assert {shape[1:3] for shape in backend.shapes} == {(24, 24)}
    assert done[-1] == (3500, 3500, "scene")
    with rasterio.open(files.classes) as dataset:
        np.testing.assert_array_equal(dataset.read(1), backend.classify(image[None])[0])


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_scenes_are_predicted_and_recognized_as_the_predictor_is_set(tmp_path, kind):
    torch.manual_seed(0)
    model = build_model("unet", ClassMap.build(["a", "b", "c"]), options={"width": 4, "depth": 4}).eval()
    model.save(tmp_path / "model")
    source = tmp_path / "model" if kind == "folder" else export_onnx(model, tmp_path / "model.onnx")
    image = noise(60, 90, bands=3)
    Image.fromarray(image).save(tmp_path / "scene.png")

    def differences(out, **options):
        predictor = Predictor(source, **options)
        found = np.asarray(Image.open(predictor.predict_scene(tmp_path / "scene.png", tmp_path / out).classes))
        return (found != predictor.predict_classes(image)).sum()

    cosine = {"tile": 32, "overlap": 8, "blend": "cosine"}
    centered = Predictor(source, tile=32, overlap=8).predict_classes(image)
    assert (Predictor(source, **cosine).predict_classes(image) != centered).any()
    assert differences("cosine", **cosine) == 0
    assert differences("cosine", **cosine) == 0, "what is there already is recognized"
    assert predict_scenes(source, [tmp_path / "scene.png"], tmp_path / "cosine", SceneOptions(**cosine))[0].skipped
    assert differences("plain") == 0
    assert predict_scenes(source, [tmp_path / "scene.png"], tmp_path / "plain")[0].skipped
    with pytest.raises(ConfigError, match="--overwrite"):
        differences("plain", precision="32")


def test_a_file_is_opened_for_scenes_as_the_predictor_is_set(tmp_path, monkeypatch):
    model = build_model("unet", ClassMap.build(["a", "b"]), options={"width": 2, "depth": 2}).eval()
    file = export_onnx(model, tmp_path / "model.onnx")
    asked = {"runtime": "openvino", "precision": "32", "threads": 1, "classes": ClassMap.build(["c", "d"])}
    predictor, opened = Predictor(file, **asked), []
    monkeypatch.setattr(stream, "open_backend", lambda *_, **options: opened.append(options) or predictor.backend)
    Image.fromarray(noise(20, 30, bands=3)).save(tmp_path / "scene.png")
    for options in (None, SceneOptions(confidence=True)):
        predictor.predict_scene(tmp_path / "scene.png", tmp_path / str(options is None), options)
    assert [{name: options[name] for name in asked} for options in opened] == [asked] * 2
