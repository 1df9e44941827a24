from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segshrink.classes import ClassMap
from segshrink.errors import FileError
from segshrink.imagery import read_image
from segshrink.imagery.display import Thumbnail
from segshrink.tiling import Window, grid

CLASSES = ClassMap.build([("a", "#FF0000", None), ("b", "#00FF00", None)], ["#000000"])
WHITE = [255, 255, 255]


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return image, rng.integers(0, 2, (height, width)).astype(np.uint8)


def filled(image: np.ndarray, index: np.ndarray, *, tile: int, long_side: int) -> Thumbnail:
    thumbnail = Thumbnail(*index.shape, CLASSES, long_side=long_side)
    for window in grid(*index.shape, tile=tile, overlap=tile // 4):
        thumbnail.add(window, image[window.slices], index[window.slices])
    return thumbnail


@pytest.mark.parametrize("tile", [7, 32, 1000])
def test_every_nth_pixel_is_shown_whatever_the_tiles(tmp_path: Path, tile: int) -> None:
    image, index = scene(90, 60)
    thumbnail = filled(image, index, tile=tile, long_side=30)
    assert thumbnail.shape == (30, 20)
    thumbnail.write(tmp_path / "q.png", opacity=0)
    np.testing.assert_array_equal(read_image(tmp_path / "q.png"), image[1::3, 1::3])
    thumbnail.write(tmp_path / "q.png", opacity=1)
    np.testing.assert_array_equal(read_image(tmp_path / "q.png"), CLASSES.colorize(index[1::3, 1::3]))


def test_small_scenes_are_shown_pixel_by_pixel(tmp_path: Path) -> None:
    image, index = scene(5, 3)
    filled(image, index, tile=2, long_side=2048).write(tmp_path / "q.png", opacity=0)
    np.testing.assert_array_equal(read_image(tmp_path / "q.png"), image)


def test_long_scenes_keep_at_least_one_row() -> None:
    assert Thumbnail(1, 100_000, CLASSES).shape == (1, 2048)


def test_nodata_is_white_and_leaves_the_stretch_alone(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 3000, 101).astype(np.uint16)
    image = np.tile(ramp, (100, 1))[:, :, np.newaxis]
    image[:50] = 65535
    index = np.zeros((100, 101), dtype=np.uint8)
    index[:50] = 255
    thumbnail = Thumbnail(100, 101, CLASSES)
    thumbnail.add(Window(0, 0, 100, 101), image, index)
    thumbnail.write(tmp_path / "q.png", opacity=0)
    shown = read_image(tmp_path / "q.png")
    assert (shown[:50] == 255).all()
    assert shown[60, [0, 50, 100]].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_pixels_without_class_and_those_that_never_came_are_white(tmp_path: Path) -> None:
    image, index = scene(20, 20)
    index[:5] = 255
    thumbnail = Thumbnail(20, 20, CLASSES)
    thumbnail.add(Window(0, 0, 10, 20), image[:10], index[:10])
    thumbnail.write(tmp_path / "q.png", opacity=0)
    shown = read_image(tmp_path / "q.png")
    assert shown[2, 2].tolist() == WHITE
    assert shown[15, 2].tolist() == WHITE
    np.testing.assert_array_equal(shown[5:10], image[5:10])
    Thumbnail(4, 4, CLASSES).write(tmp_path / "empty.png")
    assert (read_image(tmp_path / "empty.png") == 255).all()


def test_infrared_is_left_out_of_the_picture(tmp_path: Path) -> None:
    image, index = scene(8, 8)
    four = np.concatenate([image, image[:, :, :1]], axis=2)
    filled(four, index, tile=8, long_side=8).write(tmp_path / "q.png", opacity=0)
    np.testing.assert_array_equal(read_image(tmp_path / "q.png"), image)


def test_wrong_shapes_and_suffixes_are_refused(tmp_path: Path) -> None:
    image, index = scene(8, 8)
    with pytest.raises(ValueError, match=r"expected pixels and classes of \(4, 8\), found \(8, 8\) and \(8, 8\)"):
        Thumbnail(8, 8, CLASSES).add(Window(0, 0, 4, 8), image, index)
    with pytest.raises(FileError, match=r"unknown suffix '\.xyz'"):
        Thumbnail(8, 8, CLASSES).write(tmp_path / "q.xyz")
