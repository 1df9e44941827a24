from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segshrink.imagery import read_image, to_display


def noise(*shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(1000, 200, shape)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 2), (20, 30, 3), (20, 30, 7)])
def test_anything_becomes_three_bytes_a_pixel(shape: tuple[int, ...], dtype: str) -> None:
    shown = to_display((noise(*shape) / 4 % 250).astype(dtype))
    assert shown.shape == (20, 30, 3)
    assert shown.dtype == np.uint8
    assert shown.flags.c_contiguous


def test_eight_bit_colors_stay_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 4)).astype(np.uint8)
    np.testing.assert_array_equal(to_display(image), image[:, :, :3])
    np.testing.assert_array_equal(to_display(image[:, :, :1])[:, :, 2], image[:, :, 0])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_two_percent_at_each_end_saturate(dtype: str) -> None:
    shown = to_display(noise(300, 300, 3).astype(dtype))
    for band in range(3):
        assert (shown[:, :, band] == 0).mean() == pytest.approx(0.02, abs=0.005)
        assert (shown[:, :, band] == 255).mean() == pytest.approx(0.02, abs=0.005)


def test_the_stretch_is_the_same_for_a_gain_and_an_offset() -> None:
    image = noise(50, 60, 3).astype(np.float32)
    moved = image * np.array([2, 0.5, 7], dtype=np.float32) + np.float32(300)
    assert np.abs(to_display(image).astype(int) - to_display(moved)).max() <= 1


def test_order_is_kept() -> None:
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    assert (np.diff(to_display(image)[:, :, 0].ravel().astype(int)) >= 0).all()


def test_nan_and_infinity_are_black_and_do_not_spoil_the_rest() -> None:
    image = noise(50, 50, 1).astype(np.float32)
    spoiled = image.copy()
    spoiled[0, :3, 0] = (np.nan, np.inf, -np.inf)
    shown = to_display(spoiled)
    assert shown[0, :3].max() == 0
    assert np.abs(shown[1:].astype(int) - to_display(image)[1:]).max() <= 3


@pytest.mark.parametrize("value", [0, 7, 10_000, np.nan])
def test_constant_images_are_shown(value: float) -> None:
    shown = to_display(np.full((4, 4, 3), value, dtype=np.float32))
    assert len(np.unique(shown)) == 1


def test_one_bright_pixel_is_no_constant_image() -> None:
    image = np.zeros((100, 100, 1), dtype=np.uint16)
    image[3, 4] = 9
    assert to_display(image)[3, 4, 0] == 255


@pytest.mark.parametrize("name", ["mosaic_cog1.tif", "sample_geotiff.tif", "cog_nodata_nan.tif"])
def test_real_scenes_show_contrast(shared_data: Path, name: str) -> None:
    assert to_display(read_image(shared_data / "geotiff" / name)).std() > 20
