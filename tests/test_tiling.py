from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segshrink.tiling import Blend, Window, cosine_weights, grid

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40)).flatmap(
    lambda sizes: st.tuples(*(st.just(size) for size in sizes), st.integers(0, sizes[2] - 1))
)


def cover(height: int, width: int, windows: list[Window]) -> np.ndarray:
    counts = np.zeros((height, width), dtype=np.int64)
    for window in windows:
        counts[window.slices] += 1
    return counts


@given(SIZES)
def test_grids_cover_every_pixel_with_windows_of_one_size_inside_the_image(sizes: tuple[int, int, int, int]) -> None:
    height, width, tile, overlap = sizes
    windows = grid(height, width, tile=tile, overlap=overlap)
    assert {(window.height, window.width) for window in windows} == {(min(tile, height), min(tile, width))}
    assert all(0 <= window.row <= height - window.height for window in windows)
    assert all(0 <= window.col <= width - window.width for window in windows)
    assert cover(height, width, windows).min() >= 1
    assert windows == sorted(windows, key=lambda window: (window.row, window.col))
    assert len(set(windows)) == len(windows)


@given(SIZES)
def test_neighbors_share_the_overlap_and_no_window_is_superfluous(sizes: tuple[int, int, int, int]) -> None:
    height, width, tile, overlap = sizes
    rows = sorted({window.row for window in grid(height, width, tile=tile, overlap=overlap)})
    assert all(first + tile - second >= overlap for first, second in pairwise(rows))
    # One window less could not reach the end with that overlap.
    assert len(rows) == 1 or tile + (len(rows) - 2) * (tile - overlap) < height


def test_a_window_of_an_array() -> None:
    array = np.arange(42).reshape(6, 7)
    assert array[Window(1, 2, 2, 3).slices].tolist() == [[9, 10, 11], [16, 17, 18]]


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"), [(0, 5, 4, 0), (5, 0, 4, 0), (5, 5, 0, 0), (5, 5, 4, 4), (5, 5, 4, -1)]
)
def test_impossible_grids_are_refused(height: int, width: int, tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="found"):
        grid(height, width, tile=tile, overlap=overlap)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (64, 48), (5, 300)])
@pytest.mark.parametrize("overlap", [0, 1, 4, 16, 500])
def test_weights_are_positive_symmetric_and_largest_inside(shape: tuple[int, int], overlap: int) -> None:
    weights = cosine_weights(*shape, overlap=overlap)
    assert weights.shape == shape
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-5)
    steps = np.diff(weights[shape[0] // 2, : (shape[1] + 1) // 2])
    assert (steps >= -1e-6).all()


def test_weights_of_regular_neighbors_add_up_to_one() -> None:
    size, overlap = 32, 12
    weights = cosine_weights(size, size, overlap=overlap)
    middle = weights[size // 2]
    np.testing.assert_allclose(middle[-overlap:] + middle[:overlap], 1, atol=1e-6)
    assert weights[size // 2, size // 2] == 1


@settings(max_examples=50)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_blending_what_was_cut_gives_the_whole_again(sizes: tuple[int, int, int, int], seed: int) -> None:
    height, width, tile, overlap = sizes
    whole = np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)
    blend = Blend(3, height, width)
    for window in grid(height, width, tile=tile, overlap=overlap):
        rows, cols = window.slices
        blend.add(whole[:, rows, cols], window, cosine_weights(window.height, window.width, overlap=overlap))
    result = blend.result()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, whole, rtol=1e-4, atol=1e-5)


def test_blending_is_the_weighted_mean() -> None:
    blend = Blend(1, 1, 3)
    blend.add(np.full((1, 1, 2), 1.0), Window(0, 0, 1, 2), np.array([[1, 1]], dtype=np.float32))
    blend.add(np.full((1, 1, 2), 5.0), Window(0, 1, 1, 2), np.array([[3, 1]], dtype=np.float32))
    np.testing.assert_allclose(blend.result(), [[[1, 4, 5]]])
    # Taking the result twice gives the same.
    np.testing.assert_allclose(blend.result(), [[[1, 4, 5]]])


def test_a_seam_between_disagreeing_windows_is_smooth() -> None:
    blend = Blend(1, 32, 64 - 16)
    weights = cosine_weights(32, 32, overlap=16)
    for value, window in enumerate(grid(32, 48, tile=32, overlap=16)):
        blend.add(np.full((1, 32, 32), float(value)), window, weights)
    profile = blend.result()[0, 16]
    assert profile[0] == 0
    assert profile[-1] == 1
    assert 0 < np.diff(profile).max() < 0.12


def test_blend_refuses_gaps_wrong_shapes_and_late_windows() -> None:
    blend = Blend(2, 4, 4)
    weights = np.ones((4, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"expected values \(2, 4, 2\)"):
        blend.add(np.zeros((1, 4, 2)), Window(0, 0, 4, 2), weights)
    blend.add(np.zeros((2, 4, 2)), Window(0, 0, 4, 2), weights)
    with pytest.raises(ValueError, match="covered by no window"):
        blend.result()
    blend.add(np.zeros((2, 4, 2)), Window(0, 2, 4, 2), weights)
    blend.result()
    with pytest.raises(ValueError, match="the result was taken"):
        blend.add(np.zeros((2, 4, 2)), Window(0, 0, 4, 2), weights)


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    strides=st.integers(2, 6),
    shared=st.integers(0, 1),
    align=st.integers(1, 16),
)
def test_aligned_windows_start_at_multiples_and_leave_no_gap(height, width, strides, shared, align):
    tile, overlap = strides * align, shared * align
    windows = grid(height, width, tile=tile, overlap=overlap, align=align)
    covered = np.zeros((height, width), bool)
    for window in windows:
        assert window.row % align == window.col % align == 0
        assert min(tile, height) <= window.height < tile + align
        assert min(tile, width) <= window.width < tile + align
        covered[window.slices] = True
    assert covered.all()
    cols = sorted({window.col for window in windows})
    assert all(right - left <= tile - overlap for left, right in pairwise(cols))
