"""Scale and offset tags: the same values whatever numbers a file stores them as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from segshrink.errors import DataError
from segshrink.imagery import ReadOptions, open_scene, probe, read_valid_image
from segshrink.imagery.scaling import Scaling
from segshrink.tiling import Window

NORTH_UP = Affine(1, 0, 5, 0, -1, 5)


def write(path: Path, pixels: NDArray[np.generic], scale: float, offset: float) -> Path:
    height, width, count = pixels.shape
    size = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=NORTH_UP, **size) as file:
        file.write(pixels.transpose(2, 0, 1))
        file.scales, file.offsets = (scale,) * count, (offset,) * count
    return path


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "model"),
    [
        ("uint16", 1e-4, -0.1, (1e-4, 0.0)),  # Sentinel-2 of baseline 04.00 for a model of earlier images
        ("uint16", 1e-4, 0.0, (1e-4, -0.1)),
        ("uint16", 2.75e-5, -0.2, (1e-4, -0.1)),
        ("int16", 0.01, 20.0, (0.02, -3.0)),
        ("float32", 2.0, 1.0, (0.5, -1.0)),
        ("uint16", 1.0, -1000.0, (1.0, 0.0)),
    ],
)
def test_numbers_become_those_that_stand_for_the_same_values(
    tmp_path: Path, dtype: str, scale: float, offset: float, model: tuple[float, float]
) -> None:
    pixels = np.random.default_rng(0).integers(2000, 9000, (4, 5, 2)).astype(dtype)
    path = write(tmp_path / "a.tif", pixels, scale, offset)
    wanted: Scaling = (model, model)

    with open_scene(path, scaling=wanted) as scene:
        predicted, _ = scene.read(Window(0, 0, 4, 5))
    trained, _ = read_valid_image(path, ReadOptions(scaling=wanted))

    assert str(predicted.dtype) == dtype
    np.testing.assert_array_equal(trained, predicted)
    values = pixels.astype(np.float64) * scale + offset
    expected = np.clip((values - model[1]) / model[0], 0, 65535)
    assert np.abs(predicted - expected).max() <= 0.5 + 1e-6


def test_what_says_nothing_is_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.arange(40, dtype=np.uint16).reshape(4, 5, 2)
    plain = write(tmp_path / "plain.tif", pixels, 1.0, 0.0)
    tagged = write(tmp_path / "tagged.tif", pixels, 1e-4, 0.0)
    assert probe(plain).scaling is None
    assert probe(tagged).scaling == ((1e-4, 0.0),) * 2
    for path, model in ((plain, ((1e-4, 0.0),) * 2), (tagged, ((1.0, 0.0),) * 2), (tagged, None)):
        with open_scene(path, scaling=model) as scene:
            np.testing.assert_array_equal(scene.read(Window(0, 0, 4, 5))[0], pixels)


def test_an_offset_that_only_one_side_says_is_refused_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((4, 5, 2), 7, np.uint16), 1.0, 0.0)
    with pytest.raises(DataError, match=r"a\.tif.*--scale 0:65535"):
        open_scene(path, scaling=((1e-4, -0.1),) * 2)
    with open_scene(path, scaling=((1e-4, -0.1),) * 2, scale=(0, 65535)) as scene:
        assert (scene.read(Window(0, 0, 4, 5))[0] == 7).all()
