"""Photometric changes: ranges, statistics, data types."""

from __future__ import annotations

import numpy as np
import pytest

from segshrink.config import Augmentation
from segshrink.data.augmentation import ValueRange, photometric, value_range

NOTHING = {"brightness": 0.0, "contrast": 0.0, "band_gain": 0.0, "noise": 0.0}
BYTES = ValueRange(0, 255, 255)


def changed(image: np.ndarray, seed: int = 0, limits: ValueRange = BYTES, **settings: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return photometric(image, rng, settings=Augmentation(**(NOTHING | settings)), limits=limits)


def photograph(bands: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(9).integers(60, 140, (40, 50, bands)).astype(dtype)


def test_nothing_changes_without_settings() -> None:
    image = photograph()
    np.testing.assert_array_equal(changed(image), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_any_bands_and_type(bands: int, dtype: type) -> None:
    image = photograph(bands, dtype)
    before = image.copy()
    result = changed(image, brightness=0.3, contrast=0.3, band_gain=0.2, noise=0.05)
    assert result.shape == image.shape
    assert result.dtype == dtype
    assert (result != image).mean() > 0.5
    np.testing.assert_array_equal(image, before)
    again = changed(image, brightness=0.3, contrast=0.3, band_gain=0.2, noise=0.05)
    np.testing.assert_array_equal(result, again)
    other = changed(image, seed=1, brightness=0.3, contrast=0.3, band_gain=0.2, noise=0.05)
    assert (result != other).any()


def test_brightness_is_one_factor_for_all_bands() -> None:
    image = photograph(dtype=np.float32)
    factors = [changed(image, seed, brightness=0.2, limits=ValueRange(0, 500, 500)) / image for seed in range(200)]
    for factor in factors:
        np.testing.assert_allclose(factor, factor[0, 0, 0], rtol=1e-5)
    drawn = [float(factor[0, 0, 0]) for factor in factors]
    assert 0.8 <= min(drawn) < 0.82
    assert 1.18 < max(drawn) <= 1.2


def test_gain_is_one_factor_for_each_band() -> None:
    image = photograph(5, np.float32)
    factor = changed(image, band_gain=0.1, limits=ValueRange(0, 500, 500)) / image
    np.testing.assert_allclose(factor, np.broadcast_to(factor[0, 0], factor.shape), rtol=1e-5)
    assert np.unique(factor[0, 0].round(4)).size == 5
    assert np.abs(factor - 1).max() <= 0.1 + 1e-6


def test_contrast_keeps_each_bands_mean() -> None:
    image = photograph(4, np.float32) * np.float32([1, 2, 3, 4])
    result = changed(image, contrast=0.5, limits=ValueRange(0, 5000, 5000))
    np.testing.assert_allclose(result.mean(axis=(0, 1)), image.mean(axis=(0, 1)), rtol=1e-4)
    spread = result.std(axis=(0, 1)) / image.std(axis=(0, 1))
    np.testing.assert_allclose(spread, spread[0], rtol=1e-3)
    assert abs(spread[0] - 1) > 0.01


def test_noise_is_gaussian_and_as_wide_as_said() -> None:
    grey = np.full((200, 200, 3), 1000, np.float32)
    limits = ValueRange(0, 4095, 4095)
    widths = []
    for seed in range(40):
        noise = changed(grey, seed, noise=0.02, limits=limits) - 1000
        width = noise.std()
        assert abs(noise.mean()) < width / 50
        # 68.3 % of a Gaussian lies within one standard deviation, 95.4 % within two.
        assert (np.abs(noise) < width).mean() == pytest.approx(0.683, abs=0.01)
        assert (np.abs(noise) < 2 * width).mean() == pytest.approx(0.954, abs=0.01)
        left, right = noise[:, :-1].ravel(), noise[:, 1:].ravel()
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.02
        widths.append(width / 4095)
    assert max(widths) <= 0.0201
    assert np.mean(widths) == pytest.approx(0.01, abs=0.003)


def test_noise_of_a_large_image() -> None:
    noise = changed(np.zeros((1100, 1000, 3), np.float32), noise=0.5, limits=ValueRange(-100, 100, 100))
    for part in (noise[:100], noise[-100:]):
        assert part.std() == pytest.approx(noise.std(), rel=0.02)


def test_results_stay_in_range() -> None:
    image = np.array([[[0], [255]]], np.uint8).repeat(20, axis=0)
    for seed in range(20):
        result = changed(image, seed, brightness=1, contrast=1, noise=1)
        assert result.dtype == np.uint8  # a wrapped value would be far from its neighbour in float
        floating = changed(image.astype(np.float32), seed, brightness=1, contrast=1, noise=1)
        assert floating.min() >= 0
        assert floating.max() <= 255
        np.testing.assert_allclose(result, floating, atol=0.51)


def test_values_beyond_the_measured_range_survive() -> None:
    image = photograph(1, np.float32)
    image[0, 0] = 900
    result = changed(image, noise=1e-9, limits=ValueRange(60, 140, 80))
    assert result[0, 0] == pytest.approx(900, rel=1e-5)


def test_pixels_without_data_stay_so_and_spoil_no_other() -> None:
    image = photograph(2, np.float32)
    image[3, 4, 1] = np.nan
    result = changed(image, brightness=0.2, contrast=0.2, noise=0.01)
    assert np.isnan(result).sum() == 1
    assert np.isnan(result[3, 4, 1])
    nowhere = np.full((4, 4, 2), np.nan, np.float32)
    assert np.isnan(changed(nowhere, brightness=0.2, contrast=0.2, noise=0.01)).all()


def test_value_range_is_the_types_or_the_datas() -> None:
    assert value_range([photograph()]) == BYTES
    twelve_bits = np.array([[[0]], [[4095]]], np.uint16)
    assert value_range([twelve_bits]) == ValueRange(0, 65535, 4095)
    reflectance = np.array([[[0.1, np.nan]], [[0.9, np.inf]]], np.float32)
    measured = value_range([reflectance, reflectance + 1])
    assert (measured.low, measured.high) == pytest.approx((0.1, 1.9))
    assert measured.span == pytest.approx(1.8)
