"""How large an image is where a model works on it, and that it gets there as it should."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segshrink.errors import ModelError
from segshrink.models.model import at_working_size
from segshrink.working_size import (
    Resize,
    checked,
    depends_on_image,
    in_words,
    pixels_of_stride,
    sizes_on_the_way,
    working_size,
)

RESIZES: list[Resize] = [0.5, 1 / 3, 0.37, 2.0, {"longest": 40}, (24, 56)]


@pytest.mark.parametrize(
    ("resize", "size"),
    [
        (0.5, (188, 250)),  # half of 375 is rounded up, in every runtime
        (1 / 6, (63, 83)),
        (2.0, (750, 1000)),
        ({"longest": 250}, (188, 250)),
        ({"longest": 1000}, (750, 1000)),
        ((256, 128), (256, 128)),
        (1 / 64, (6, 8)),
    ],
)
def test_the_working_size_of_a_photo(resize: Resize, size: tuple[int, int]) -> None:
    assert working_size(resize, 375, 500) == size
    assert depends_on_image(resize) == (not isinstance(resize, float))


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(RESIZES))
def test_no_step_but_the_last_of_many_skips_pixels(height: int, width: int, resize: Resize) -> None:
    sizes = [(height, width), *sizes_on_the_way(resize, height, width)]
    assert sizes[-1] == working_size(resize, height, width)
    assert len(set(sizes)) == len(sizes)
    for before, after in pairwise(sizes[:-1]):
        assert all(2 * new >= old for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("share", [0.5, 1 / 3, 0.3, 2.0])
def test_pixels_of_a_stride_become_a_whole_number_of_strides(share: float) -> None:
    pixels = pixels_of_stride(share, 32)
    assert working_size(share, pixels, pixels)[0] % 32 == 0
    assert pixels * share % 32 == pytest.approx(0, abs=1e-6) or pixels * share % 32 == pytest.approx(32, abs=1e-6)


@pytest.mark.parametrize("value", [0.5, 1, {"longest": 500}, [256, 128]])
def test_what_files_hold_is_read(value: object) -> None:
    resize = checked(value)
    assert checked(resize) == resize
    assert in_words(resize)


@pytest.mark.parametrize(
    "value",
    [0, -0.5, float("nan"), 9.0, True, "half", {"longest": 0}, {"shortest": 5}, {}, [256], [1, 2, 3], [0.5, 0.5]],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ModelError, match="a working size is a share"):
        checked(value)


def linear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation by NumPy, one axis after the other."""
    for axis, new in enumerate(size):
        old = image.shape[axis]
        places = (np.arange(new) + 0.5) * old / new - 0.5
        image = np.apply_along_axis(lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, image)
    return image


@pytest.mark.parametrize("resize", RESIZES)
def test_images_get_there_bilinearly_step_by_step(resize: Resize) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 61), dtype=np.uint8)
    expected = image.astype(np.float64)
    for size in sizes_on_the_way(resize, 90, 61):
        expected = linear(expected, size)
    found = at_working_size(torch.from_numpy(image)[None, None], resize)
    np.testing.assert_allclose(found[0, 0], expected, atol=2e-3)


def test_shrinking_to_a_fourth_averages_all_pixels() -> None:
    image = np.random.default_rng(0).random((40, 64), dtype=np.float32)
    blocks = image.reshape(10, 4, 16, 4).mean(axis=(1, 3))
    found = at_working_size(torch.from_numpy(image)[None, None], 0.25)
    np.testing.assert_allclose(found[0, 0], blocks, atol=1e-6)
