"""Scenes read at another resolution, against plain rasterio reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from tests.imagery.conftest import PLACE, RGB, Paint, whole, write_mask_beside

from segshrink.imagery import reading
from segshrink.imagery.scenes import open_scene
from segshrink.tiling import Window, grid


def locate(picture: Path) -> None:
    """Say beside a picture that it lies at ``PLACE``."""
    picture.with_suffix(".pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n4999999.75\n")
    Path(f"{picture}.aux.xml").write_text("<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>")


@pytest.mark.parametrize("resolution", [0.51, 0.5, 0.48])
def test_a_close_resolution_is_read_as_it_is(paint: Paint, resolution: float) -> None:
    np.testing.assert_array_equal(whole(paint("scene.tif", RGB, **PLACE), resolution=resolution)[0], RGB)


def test_shrinking_averages_valid_pixels(paint: Paint) -> None:
    values = np.zeros((80, 60), dtype=np.float32)
    values[::2] = 10
    values[:40] += 4
    values[0, 0] = -9999
    path = paint("scene.tif", values, nodata=-9999, **PLACE)

    with open_scene(path, resolution=1.0) as scene:
        assert (scene.height, scene.width) == (40, 30)
        assert scene.georeference.transform == (1, 0, 5e5, 0, -1, 5e6)
        pixels, valid = scene.read(Window(0, 0, 40, 30))

    assert pixels[1:20, :, 0] == pytest.approx(np.full((19, 30), 9))
    assert pixels[20:, :, 0] == pytest.approx(np.full((20, 30), 5))
    # (10 + 4 + 4 + 4) / 3 of 14, 4 and 4: the no-data pixel is left out.
    assert pixels[0, 0, 0] == pytest.approx((14 + 4 + 4) / 3, rel=1e-5) or not (valid is None or valid[0, 0])


@pytest.mark.parametrize("told", ["tag", "user", "picture"])
@pytest.mark.parametrize("most", [1 << 24, 500])
def test_dark_values_of_bands_count_where_0_means_no_data(
    paint: Paint, told: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_RESAMPLED", most)
    values = 100 * np.random.default_rng(4).integers(0, 2, (80, 60, 3), dtype=np.uint8)
    values[:21, :31] = 0
    filled = values.any(axis=2)
    sums, counts = (
        part.reshape(40, 2, 30, 2, -1).sum(axis=(1, 3)).astype(float) for part in (values * filled[:, :, None], filled)
    )
    driver, name = ("PNG", "scene.png") if told == "picture" else ("GTiff", "scene.tif")
    path = paint(name, values, driver=driver, nodata=0 if told == "tag" else None, **PLACE)
    if told == "picture":
        locate(path)

    pixels, valid = whole(path, resolution=1.0, nodata=None if told == "tag" else 0)

    assert valid is not None
    np.testing.assert_array_equal(valid, counts[:, :, 0] > 0)
    assert np.abs(pixels[valid] - (sums[valid] / counts[valid])).max() <= 0.5


@pytest.mark.parametrize("resolution", [0.3, 1.1, 1.7])
def test_a_no_data_value_that_stands_in_all_bands_or_none_is_left_out_as_by_rasterio(
    paint: Paint, resolution: float
) -> None:
    values = RGB.copy()
    values[10:30, 20:41] = 0
    path = paint("scene.tif", values, nodata=0, **PLACE)
    pixels, valid = whole(path, resolution=resolution)
    resampling = Resampling.bilinear if resolution < 0.5 else Resampling.average
    with rasterio.open(path) as dataset:
        expected = dataset.read(out_shape=(3, *pixels.shape[:2]), resampling=resampling).transpose(1, 2, 0)
    assert valid is not None
    np.testing.assert_array_equal(valid, expected.any(axis=2))
    np.testing.assert_array_equal(pixels[valid], expected[valid])


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
@pytest.mark.parametrize("hole", ["mask", "alpha"])
@pytest.mark.parametrize("resolution", [0.3, 1.0, 1.5])
def test_what_is_masked_out_mixes_into_no_pixel(paint: Paint, resolution: float, hole: str, driver: str) -> None:
    filled = np.ones((60, 60), dtype=bool)
    filled[:, :29] = False
    pixels = np.where(filled[:, :, np.newaxis], np.array([200, 100, 50]), 0).astype(np.uint8)
    if hole == "alpha":
        pixels = np.dstack([pixels, filled * np.uint8(255)])
    name = "scene.png" if driver == "PNG" else "scene.tif"
    tags = {} if driver == "PNG" or hole == "mask" else {"photometric": "RGB", "alpha": "yes"}
    path = paint(name, pixels, driver=driver, **tags, **PLACE)
    if hole == "mask":
        write_mask_beside(path, filled)
    if driver == "PNG":
        locate(path)

    read, valid = whole(path, resolution=resolution)

    assert valid is not None
    assert valid.mean() == pytest.approx(31 / 60, abs=0.05)
    np.testing.assert_array_equal(read, np.broadcast_to([200, 100, 50], read.shape))


@pytest.mark.parametrize("resolution", [0.37, 0.8, 1.0, 1.9])
@pytest.mark.parametrize("hole", [None, "nodata", "mask", "alpha"])
def test_resampled_tiles_fit_together(paint: Paint, resolution: float, hole: str | None) -> None:
    smooth = np.add.outer(np.arange(120), np.arange(150))[:, :, np.newaxis] + np.array([1, 40, 80])
    pixels = (smooth // 2 + 1).astype(np.uint8)
    filled = np.ones((120, 150), dtype=bool)
    filled[50:70, 20:60] = False
    more: dict[str, Any] = {}
    if hole == "nodata":
        pixels[~filled] = 0
        more["nodata"] = 0
    elif hole == "mask":
        more["mask"] = filled
    elif hole == "alpha":
        pixels = np.concatenate([pixels, filled[:, :, np.newaxis] * np.uint8(255)], axis=2)
        more |= {"photometric": "RGB", "alpha": "yes"}
    path = paint("scene.tif", pixels, **more, **PLACE)

    with open_scene(path, resolution=resolution) as scene:
        assert scene.height == round(120 * 0.5 / resolution)
        expected, expected_valid = scene.read(Window(0, 0, scene.height, scene.width))
        for window in grid(scene.height, scene.width, tile=16, overlap=4):
            found, valid = scene.read(window)
            if expected_valid is None:
                assert valid is None
                same = np.ones(found.shape[:2], bool)
            else:
                same = expected_valid[window.slices]
                np.testing.assert_array_equal(same, np.ones_like(same) if valid is None else valid)
            difference = found[same].astype(int) - expected[window.slices][same]
            assert np.abs(difference).max(initial=0) <= 1


@pytest.mark.parametrize("nodata", [None, 0])
def test_overviews_are_used_where_there_are_some(paint: Paint, nodata: int | None) -> None:
    path = paint("scene.tif", RGB.repeat(4, axis=0).repeat(4, axis=1), overviews=[2, 4], nodata=nodata, **PLACE)
    # Overviews that show something else than the image tell where values come from.
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.zeros((3, 280, 360), dtype=np.uint8))

    pixels, _ = whole(path, resolution=2.0)

    assert pixels.shape == (70, 90, 3)
    np.testing.assert_array_equal(pixels, RGB)


def test_enlarging_is_bilinear(paint: Paint) -> None:
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.float32), (20, 1))
    path = paint("ramp.tif", ramp, **PLACE)

    pixels, _ = whole(path, resolution=0.25)

    assert pixels.shape == (40, 40, 1)
    # Centers lie at 0.25, 0.75, 1.25, ... source pixels.
    assert pixels[20, 2:38, 0] == pytest.approx((np.arange(2, 38) + 0.5) * 5 - 5, abs=1e-3)


def test_degrees_are_meters_at_the_latitude(paint: Paint) -> None:
    transform = Affine(1e-5, 0, 10, 0, -1e-5, 60)
    with open_scene(paint("degrees.tif", RGB, crs="EPSG:4326", transform=transform), resolution=1.1141) as scene:
        # A pixel is 1.1141 m high and 0.558 m wide.
        assert (scene.height, scene.width) == (70, 45)


def test_a_real_overview_gives_what_rasterio_gives(shared_data: Path) -> None:
    path = shared_data / "geotiff" / "mosaic_cog1.tif"
    with rasterio.open(path) as dataset:
        expected = dataset.read(
            out_shape=(3, round(790 / 2), round(779 * 300.038239038384 / 600.076478)), resampling=Resampling.average
        ).transpose(1, 2, 0)

    pixels, valid = whole(path, resolution=600.076478)

    assert valid is not None
    np.testing.assert_array_equal(pixels[valid], expected[valid])
