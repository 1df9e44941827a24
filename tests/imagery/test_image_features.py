"""Features of images: the same however an image comes, and changed by a change of the image as the change says."""

from __future__ import annotations

import io
from itertools import chain
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segshrink.imagery.image_features import ImageSample, feature_groups, image_features, sample_windows
from segshrink.tiling import grid

Pixels = NDArray[Any]


def ground(*, height: int = 300, width: int = 420, bands: int = 3, seed: int = 0) -> Pixels:
    """Noise of all octaves, in colors that differ from place to place."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, bands), 128.0)
    for sigma in (0.5, 1, 2, 4, 8, 16):
        light, colors = rng.normal(size=(height, width, 1)), rng.normal(size=(height, width, bands))
        noise = light * rng.uniform(0.5, 1.2, bands) + 0.2 * colors
        image += 30 * sigma * ndimage.gaussian_filter(noise, (sigma, sigma, 0))
    return np.clip(image, 0, 255).astype(np.uint8)


def features(image: Pixels, valid: NDArray[np.bool_] | None = None) -> dict[str, float]:
    names = chain(*feature_groups(image.shape[2]))
    return dict(zip(names, image_features(ImageSample.of(image, valid), 0, 255).tolist(), strict=True))


def test_windows_lie_inside_and_spread() -> None:
    windows = sample_windows(1000, 130)
    assert [(window.row, window.col) for window in windows] == [(96, 0), (432, 0), (768, 0)]
    assert {(window.height, window.width) for window in windows} == {(128, 128)}
    assert len(sample_windows(2000, 2000)) == 9
    assert sample_windows(100, 900)[0].height == 96
    assert sample_windows(95, 900) == []


def test_the_order_of_parts_does_not_matter() -> None:
    image = ground()
    valid = np.random.default_rng(1).random(image.shape[:2]) > 0.02
    sample = ImageSample(*image.shape[:2])
    for window in reversed(grid(*image.shape[:2], tile=(75, 70), overlap=0)):
        sample.add(window, image[window.slices], valid[window.slices])
    whole = ImageSample.of(image, valid)
    assert sample.windows.shape == (6, 128, 128, 3)
    np.testing.assert_array_equal(np.sort(sample.points, axis=0), np.sort(whole.points, axis=0))
    np.testing.assert_array_equal(np.sort(sample.windows.ravel()), np.sort(whole.windows.ravel()))


def test_pixels_without_a_value_are_left_out() -> None:
    image, valid = ground(), np.ones((300, 420), bool)
    valid[:, :140] = False
    sample = ImageSample.of(image, valid)
    assert len(sample.windows) == 4
    assert len(sample.points) == 64 * 43  # of 64 columns those from pixel 140 on
    assert sample.usable
    assert not ImageSample.of(image, np.zeros((300, 420), bool)).usable
    assert not ImageSample.of(image[:90]).usable
    assert not ImageSample(300, 420).usable


def test_levels_are_those_of_the_pixels() -> None:
    image = np.kron(ground(height=64, width=64), np.ones((2, 2, 1), np.uint8))  # each value is one of the lattice's
    found, light = features(image), image.mean(axis=2) / 255
    assert found["mean"] == pytest.approx(light.mean(), abs=1e-6)
    assert found["middle"] == pytest.approx(np.median(light), abs=1e-6)
    assert found["warm_level"] == pytest.approx((image[..., 0].mean() - image[..., 2].mean()) / 255, abs=1e-5)
    red, green = image[..., 0].ravel(), image[..., 1].ravel()
    warm_and_blue = found["warm_correlation"] + found["blue_correlation"]
    assert np.tanh(warm_and_blue) == pytest.approx(np.corrcoef(red, green)[0, 1], abs=1e-4)
    assert found["vividness"] == pytest.approx(np.ptp(image, axis=2).mean() / 255, abs=1e-5)
    assert found["constant"] < 0.01


def test_details_of_half_the_size_are_those_of_the_next_octave() -> None:
    image = ground(height=256, width=256)
    halves = image.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    whole, half = features(image), features(halves)
    for octave in range(4):
        for name in ("energy", "peaks", "bumps"):
            assert half[f"{name}_{octave}"] == pytest.approx(whole[f"{name}_{octave + 1}"], abs=0.03), name


def test_traces() -> None:
    image = ground()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    assert features(np.asarray(Image.open(file)))["blocks"] > 1 > 0.1 > features(image)["blocks"]
    few = image // 4 * 4
    assert features(few)["gaps"] == pytest.approx(0.75, abs=0.02)
    assert features(image)["gaps"] < 0.02
    clipped = np.clip((image - 128.0) * 4 + 128, 0, 255).astype(np.uint8)
    shares = [(clipped[..., band] == 255).mean() for band in range(3)]
    assert features(clipped)["highest"] == pytest.approx(min(shares), abs=0.05)
    image[:, 210:] = 7
    assert features(image)["constant"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_any_number_of_bands(bands: int) -> None:
    found = features(ground(bands=bands))
    assert ("warm_level" in found) == (bands >= 3)
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("value", [0, 255])
def test_an_image_of_one_color_has_features(value: int) -> None:
    assert np.isfinite(list(features(np.full((96, 96, 3), value, np.uint8)).values())).all()
