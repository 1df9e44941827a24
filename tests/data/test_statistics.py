"""Band statistics against numpy over all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from segshrink.classes import ClassMap
from segshrink.data import Sample, SceneStore, absent_classes, image_statistics, statistics, training_distribution
from segshrink.errors import DataError
from segshrink.imagery import ReadOptions
from segshrink.imagery.image_features import ImageSample, image_features

CLASSES = ClassMap.build([("a", None, 0), ("b", None, 1)])


def stored(tmp_path, arrays, **options):
    samples = []
    tmp_path.mkdir(exist_ok=True)
    for number, array in enumerate(arrays):
        path = tmp_path / f"{number}.tif"
        height, width, bands = array.shape
        place = rasterio.Affine(2, 0, 100, 0, -2, 100)
        profile = {"height": height, "width": width, "count": bands, "dtype": array.dtype, "transform": place}
        with rasterio.open(path, "w", driver="GTiff", **profile, **options) as file:
            file.write(array.transpose(2, 0, 1))
        samples.append(Sample(str(number), path, None, options=ReadOptions(bands=bands)))
    return SceneStore(samples, CLASSES, folder=tmp_path / "cache")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_statistics_equal_those_of_all_pixels_together(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(statistics, "_PIXELS_AT_ONCE", 100)
    rng = np.random.default_rng(1)
    arrays = [rng.normal(120, 20, (h, w, 4)).clip(0, 255).astype(dtype) for h, w in ((13, 17), (40, 9), (1, 300))]
    measured = image_statistics(stored(tmp_path, arrays))
    pixels = np.concatenate([array.reshape(-1, 4) for array in arrays]).astype(np.float64)
    np.testing.assert_allclose(measured.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(measured.std, pixels.std(axis=0), rtol=1e-9)


def test_large_values_with_small_spread_keep_their_precision(tmp_path):
    rng = np.random.default_rng(2)
    array = (60_000 + rng.integers(0, 3, (300, 40, 1))).astype(np.uint16)
    measured = image_statistics(stored(tmp_path, [array]))
    np.testing.assert_allclose(measured.std[0], array.astype(np.float64).std(), rtol=1e-9)


def test_pixels_that_are_not_finite_are_left_out(tmp_path):
    array = np.array([[[1.0], [3.0], [np.nan], [np.inf]]], dtype=np.float32)
    measured = image_statistics(stored(tmp_path, [array]))
    assert measured.mean == (2.0,)
    assert measured.std == (1.0,)


def test_no_data_is_left_out(tmp_path):
    array = np.array([[[1, 5], [3, 9], [1, -9]]], dtype=np.int16)
    store = stored(tmp_path, [array], nodata=-9)
    assert image_statistics(store).mean == (2.0, 7.0)


def test_constant_bands_do_not_divide_by_zero(tmp_path):
    array = np.full((5, 5, 2), 7, dtype=np.uint8)
    assert image_statistics(stored(tmp_path, [array])).std == (1.0, 1.0)


def test_nothing_to_measure(tmp_path):
    with pytest.raises(DataError, match="without training images"):
        image_statistics(SceneStore([], CLASSES, folder=tmp_path))
    with pytest.raises(DataError, match="no pixel of the training images has a value"):
        image_statistics(stored(tmp_path, [np.full((2, 2, 1), np.nan, dtype=np.float32)]))


def scattered(shape, dtype=np.uint8, *, seed=0, scale=1):
    return (np.random.default_rng(seed).normal(120, 25, (*shape, 3)).clip(1, 254) * scale).astype(dtype)


def test_images_are_known_by_the_features_of_each(tmp_path):
    arrays = [scattered((130, 140), seed=seed) for seed in range(20)]
    known = training_distribution([stored(tmp_path, arrays)])
    expected = [image_features(ImageSample.of(array), 0, 255) for array in arrays]
    assert (known.scenes, known.low, known.high) == (20, 0, 255)
    np.testing.assert_allclose(known.mean, np.mean(expected, axis=0), atol=1e-9)
    np.testing.assert_allclose(known.std, np.std(expected, axis=0), atol=1e-9)


def test_of_many_images_some_are_looked_at_of_few_their_parts(tmp_path, monkeypatch):
    store = stored(tmp_path, [scattered((130, 130), seed=seed) for seed in range(12)])
    monkeypatch.setattr(statistics, "_MOST_IMAGES", 9)
    assert training_distribution([store]).scenes == 9
    assert training_distribution([stored(tmp_path / "one", [scattered((600, 700))])]).scenes == 16


def test_all_stores_count(tmp_path):
    parts = [stored(tmp_path / name, [scattered((400, 400), seed=seed)]) for seed, name in enumerate("ab")]
    together = training_distribution(parts)
    alone = training_distribution(parts[:1])
    assert together.mean != alone.mean


@pytest.mark.parametrize(("dtype", "scale"), [("uint16", 20), ("float32", 1 / 255)])
def test_numbers_that_are_no_bytes_have_the_range_of_the_images(tmp_path, dtype, scale):
    known = training_distribution([stored(tmp_path, [scattered((500, 500), dtype, scale=scale)])])
    assert known.low == pytest.approx(43 * scale, rel=0.2)
    assert known.high == pytest.approx(197 * scale, rel=0.1)


def test_too_little_to_know(tmp_path):
    assert training_distribution([SceneStore([], CLASSES, folder=tmp_path)]) is None
    assert training_distribution([stored(tmp_path / "small", [scattered((90, 90))] * 20)]) is None
    assert (
        training_distribution([stored(tmp_path / "few", [scattered((130, 130), seed=seed) for seed in range(7)])])
        is None
    )
    flat = np.full((600, 600, 3), 9, np.uint16)
    assert training_distribution([stored(tmp_path / "flat", [flat])]) is None


def test_classes_that_no_mask_holds_are_found(tmp_path):
    samples = []
    for number, value in enumerate((0, 255)):
        for kind in ("image", "mask"):
            with rasterio.open(
                tmp_path / f"{kind}{number}.tif", "w", driver="GTiff", height=4, width=5, count=1, dtype="uint8",
                transform=rasterio.Affine(2, 0, 100, 0, -2, 100),
            ) as file:  # fmt: skip
                file.write(np.full((1, 4, 5), value, dtype=np.uint8))
        samples.append(Sample(str(number), tmp_path / f"image{number}.tif", tmp_path / f"mask{number}.tif"))
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")
    assert absent_classes(store) == ("b",)
    assert absent_classes(store, allowed=["b"]) == ()
    bare = SceneStore([Sample("bare", samples[0].image, None)], CLASSES, folder=tmp_path / "cache")
    assert absent_classes(bare) == ()
