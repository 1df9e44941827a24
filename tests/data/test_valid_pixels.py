"""Pixels without a value: what the store makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.config import Augmentation, Crops
from segshrink.data import CropDataset, SceneStore, cut
from segshrink.data.crop_dataset import FixedCrops
from segshrink.data.sources import Sample
from segshrink.errors import DataError
from segshrink.imagery import MaskOptions, ReadOptions, open_scene, read_image, read_valid_image
from segshrink.tiling import Window

CLASSES = ClassMap.build([("ground", None, 0), ("house", None, 1)])
RANDOM = np.random.default_rng(5)
TARGET = RANDOM.integers(0, 2, (30, 40), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> Path:
    height, width, count = pixels.shape
    size = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
    place = {"crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", **size, **{**place, **options}) as dataset:
        dataset.write(pixels.transpose(2, 0, 1))
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A float32 scene with NaN, infinity and no-data, and its mask."""
    image = RANDOM.random((30, 40, 2), dtype=np.float32)
    image[0, :5, 1] = np.nan
    image[10, 10] = np.inf
    image[20:, 30:] = -1
    Image.fromarray(TARGET).save(tmp_path / "mask.png")
    return Sample("a", write(tmp_path / "image.tif", image, nodata=-1), tmp_path / "mask.png")


def test_they_are_filled_and_ignored(sample: Sample, tmp_path: Path) -> None:
    raw = read_image(sample.image)
    valid = np.isfinite(raw).all(axis=2) & (raw != -1).all(axis=2)

    for _ in range(2):  # decoded, and read back
        store = SceneStore([sample], CLASSES, folder=tmp_path / "cache")
        assert np.isfinite(store.image(0)).all()
        assert store.image(0).min() >= 0
        np.testing.assert_array_equal(store.image(0)[valid], raw[valid])
        np.testing.assert_array_equal(store.mask(0), np.where(valid, TARGET, IGNORE_INDEX))


def test_windows_and_images_without_masks_know_it_too(sample: Sample, tmp_path: Path) -> None:
    window = Window(15, 25, 10, 10)
    samples = [Sample("cut", sample.image, sample.mask, window), Sample("bare", sample.image, None)]
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")

    expected = TARGET[15:25, 25:35].copy()
    expected[5:, 5:] = IGNORE_INDEX
    np.testing.assert_array_equal(store.mask(0), expected)
    assert np.isfinite(store.image(1)).all()


def test_no_data_that_gdal_notes_beside_a_file_counts_in_training_as_in_prediction(tmp_path: Path) -> None:
    image = RANDOM.integers(1, 255, (30, 40, 3), dtype=np.uint8)
    image[:, :10] = 0
    Image.fromarray(TARGET).save(tmp_path / "mask.png")
    sample = Sample("a", write(tmp_path / "a.tif", image), tmp_path / "mask.png")
    assert SceneStore([sample], CLASSES, folder=tmp_path / "cache").valid(0) is None

    bands = "".join(f'<PAMRasterBand band="{band}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for band in (1, 2, 3))
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    expected = image.any(axis=2)
    store = SceneStore([sample], CLASSES, folder=tmp_path / "cache")
    with open_scene(sample.image) as scene:
        _, predicted = scene.read(Window(0, 0, 30, 40))
    for valid in (store.valid(0), predicted):
        assert valid is not None
        np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(store.mask(0), np.where(expected, TARGET, IGNORE_INDEX))
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.tif", "a.tif.aux.xml"}


def test_a_mask_is_read_anew_for_another_image(sample: Sample, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.tif", np.ones((30, 40, 2), dtype=np.float32))
    samples = [sample, Sample("b", whole, sample.mask)]
    store = SceneStore(samples, CLASSES, folder=tmp_path / "cache")

    assert (store.mask(0) == IGNORE_INDEX).any()
    np.testing.assert_array_equal(store.mask(1), TARGET)


def test_images_larger_than_a_square_are_filled_throughout(tmp_path: Path) -> None:
    image = np.full((1100, 1200, 1), 7, dtype=np.int16)
    image[:, 900:1150] = -9999
    pixels, valid = read_valid_image(write(tmp_path / "large.tif", image, nodata=-9999))

    assert (pixels == 7).all()
    assert valid is not None
    np.testing.assert_array_equal(valid, image[:, :, 0] == 7)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_transparency_is_a_mask_and_a_band_only_where_it_is_asked_for(tmp_path: Path, suffix: str) -> None:
    image = RANDOM.integers(1, 255, (8, 9, 4), dtype=np.uint8)
    image[:, :4, 3] = 0
    image[:2, :2] = 0
    path = tmp_path / f"rgba{suffix}"
    if suffix == ".tif":
        write(path, image, photometric="RGB", alpha="yes")
    else:
        Image.fromarray(image).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))

    pixels, valid = read_valid_image(path)
    assert pixels.shape == (8, 9, 3)
    assert valid is not None
    np.testing.assert_array_equal(valid, image[:, :, 3] > 0)
    np.testing.assert_array_equal(pixels[valid], image[valid][:, :3])

    for options in (ReadOptions(bands=4), ReadOptions(bands=(1, 2, 3, 4))):
        pixels, valid = read_valid_image(path, options)
        assert pixels.shape == (8, 9, 4)
        assert valid is not None
        np.testing.assert_array_equal(valid, image.any(axis=2))
        np.testing.assert_array_equal(pixels[valid], image[valid])


def test_polygons_are_asked_for_what_the_sample_says(sample: Sample, tmp_path: Path) -> None:
    corners = [[500010, 4999990], [500020, 4999990], [500020, 4999980], [500010, 4999980], [500010, 4999990]]
    path = tmp_path / "labels.geojson"
    path.write_text(
        '{"type": "Feature", "crs": {"properties": {"name": "EPSG:32633"}}, "properties": {"use": "house"}, '
        f'"geometry": {{"type": "Polygon", "coordinates": [{corners}]}}}}'
    )
    for background, outside in ((None, IGNORE_INDEX), ("ground", 0)):
        labels = MaskOptions(field="use", background=background)
        store = SceneStore([Sample("a", sample.image, path, mask_options=labels)], CLASSES, folder=tmp_path / "cache")
        assert (store.mask(0)[11:20, 11:20] == 1).all()
        assert store.mask(0)[10, 10] == IGNORE_INDEX
        assert store.mask(0)[2, 20] == outside
    wrong = Sample("a", sample.image, path, mask_options=MaskOptions(field="kind"))
    with pytest.raises(DataError, match="no attribute 'kind'"):
        SceneStore([wrong], CLASSES, folder=tmp_path / "cache")


def unlabeled_scenes(folder: Path, shares: tuple[float, ...]) -> SceneStore:
    """Scenes of 64 x 64 of which the right part has no value."""
    samples = []
    for number, share in enumerate(shares):
        image = RANDOM.integers(1, 255, (64, 64, 3), dtype=np.uint8)
        image[:, 64 - int(64 * share) :] = 0
        path = write(folder / f"bare{number}.tif", image, nodata=0)
        samples.append(Sample(str(number), path, None))
    return SceneStore(samples, CLASSES, folder=folder / "cache")


def crops_of(store: SceneStore, draw: Any = "area", **augmentation: Any) -> CropDataset:
    return CropDataset(
        store,
        crops=Crops(size=32, batch_size=8, per_epoch=400, draw=draw),
        augmentation=Augmentation(**{"scale": (1, 1), "noise": 0, **augmentation}),
        seed=0,
        layers={"layer": lambda index: np.array(store.image(index)[:, :, :1])},
    )


@pytest.mark.parametrize("augmentation", [{"flips": False, "quarter_turns": False}, {}, {"scale": (0.5, 2.0)}])
def test_only_pixels_with_a_value_are_inside(tmp_path: Path, augmentation: dict[str, Any]) -> None:
    store = unlabeled_scenes(tmp_path, (0.75, 0.0))
    crops = crops_of(store, band_gain=0, brightness=0, contrast=0, **augmentation)
    for position in range(40):
        crop, plan = crops[position], crops.plan(position, epoch=0)
        valid = store.valid(plan.sample)
        whole = np.ones(store.shape(plan.sample), dtype=np.bool_) if valid is None else valid
        np.testing.assert_array_equal(crop["inside"], cut(whole, plan, fill=False, order="nearest"))
        assert crop["inside"].any()
        np.testing.assert_array_equal(crop["layer"][0], crop["image"][0])


def test_scenes_are_drawn_by_what_they_hold(tmp_path: Path) -> None:
    store = unlabeled_scenes(tmp_path, (0.75, 0.0, 1.0))
    for draw, expected in (("area", 0.2), ("image", 0.5)):
        crops = crops_of(store, draw)
        drawn = [crops.plan(position, epoch=0).sample for position in range(400)]
        assert 2 not in drawn
        assert drawn.count(0) / 400 == pytest.approx(expected, abs=0.08)


def test_images_without_any_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 images .*bare0\.tif"):
        crops_of(unlabeled_scenes(tmp_path, (1.0, 1.0)))


def test_validation_crops_know_it_too(tmp_path: Path) -> None:
    store = unlabeled_scenes(tmp_path, (0.75,))
    crops = FixedCrops(store, size=32, count=32, offset=0, layers={})
    inside = sum(int(crops[number]["inside"].sum()) for number in range(len(crops)))
    assert inside == int(store.valid(0).sum())  # type: ignore[union-attr]
