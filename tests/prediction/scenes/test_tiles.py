from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segshrink.prediction.scenes.tiles import RollingBlend, Weights, lay_out
from segshrink.tiling import Blend, Window, cosine_weights

quick = settings(max_examples=30)


@quick
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    step=st.integers(1, 20),
    overlap=st.integers(0, 15),
    align=st.sampled_from((1, 4)),
    centered=st.booleans(),
    span_pixels=st.integers(1, 4000),
)
def test_every_pixel_is_decided_once_by_a_tile_that_sees_it(height, width, step, overlap, align, centered, span_pixels):
    tile = overlap + step
    spans = lay_out(height, width, tile=tile, overlap=overlap, align=align, centered=centered, span_pixels=span_pixels)
    decided = np.zeros((height, width), int)
    for span in spans:
        parts = np.zeros((height, width), int)
        for one in span.tiles:
            assert inside(one.kept, one.window)
            assert inside(one.window, span.window)
            parts[one.kept.slices] += 1
        whole = np.zeros((height, width), int)
        whole[span.kept.slices] = 1
        np.testing.assert_array_equal(parts, whole)
        decided += parts
    assert (decided == 1).all()
    starts = [(span.window.row, span.window.col) for span in spans]
    assert starts == sorted(starts)


def inside(part: Window, whole: Window) -> bool:
    return (
        part.row >= whole.row
        and part.col >= whole.col
        and part.row + part.height <= whole.row + whole.height
        and part.col + part.width <= whole.col + whole.width
    )


def test_centered_tiles_decide_what_is_nearest_to_their_middle():
    tiles = [tile for span in lay_out(64, 160, tile=64, overlap=16, align=1, centered=True, span_pixels=9**9)
             for tile in span.tiles]  # fmt: skip
    assert [(tile.window.col, tile.kept.col, tile.kept.width) for tile in tiles] == [
        (0, 0, 56), (48, 56, 48), (96, 104, 56),
    ]  # fmt: skip


def test_spans_hold_as_many_tiles_as_asked_for():
    for pixels, expected in ((1, 1), (3 * 32 * 48, 3), (6 * 32 * 48, 4), (10**9, 7)):
        spans = list(lay_out(48, 32 * 7 + 16, tile=48, overlap=16, align=1, centered=True, span_pixels=pixels))
        assert max(len(span.tiles) for span in spans) == expected
        assert sum(len(span.tiles) for span in spans) == 7


def test_batches_hold_tiles_of_one_width():
    (span,) = lay_out(32, 32 * 4 + 7, tile=32, overlap=0, align=8, centered=True, span_pixels=10**9)
    assert [tile.window.width for tile in span.tiles] == [32, 32, 32, 39]
    assert [len(batch) for batch in span.batches(2)] == [2, 1, 1]


@pytest.mark.parametrize(("size", "tile"), [(1, 16), (16, 16), (9, 40)])
def test_a_scene_within_a_tile_is_one(size, tile):
    (span,) = lay_out(size, size, tile=tile, overlap=4, align=4, centered=True, span_pixels=1)
    assert span.window == span.kept == span.tiles[0].window == Window(0, 0, size, size)


@quick
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    step=st.integers(1, 20),
    overlap=st.integers(0, 30),
    align=st.sampled_from((1, 4)),
    span_pixels=st.sampled_from((1, 2000)),
)
def test_gives_what_blending_the_whole_scene_at_once_gives(height, width, step, overlap, align, span_pixels):
    spans = lay_out(
        height, width, tile=overlap + step, overlap=overlap, align=align, centered=False, span_pixels=span_pixels
    )
    tiles = [tile for span in spans for tile in span.tiles]
    weights = Weights([tile.window for tile in tiles], overlap=overlap)
    rolling = RollingBlend(2, tiles)
    at_once = Blend(2, height, width)
    rng = np.random.default_rng(0)
    found = np.full((2, height, width), np.nan, np.float32)
    for tile in tiles:
        window = tile.window
        values = rng.normal(size=(2, window.height, window.width)).astype(np.float32)
        at_once.add(values, window, cosine_weights(window.height, window.width, overlap=overlap))
        rows, cols = tile.kept.slices
        found[:, rows, cols] = rolling.add(tile, values * weights(window))
    np.testing.assert_allclose(found, at_once.result(), atol=2e-5)


def test_tiles_of_a_high_scene_are_not_held():
    tracemalloc.start()
    tiles = sum(
        len(span.tiles)
        for span in lay_out(100_000, 3000, tile=64, overlap=32, align=1, centered=True, span_pixels=10**6)
    )
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 4 * tiles  # bytes: where rows begin, and one row


def test_holds_no_more_than_what_two_rows_of_tiles_share():
    spans = lay_out(10_000, 3000, tile=256, overlap=32, align=1, centered=False, span_pixels=10**6)
    blend = RollingBlend(4, [tile for span in spans for tile in span.tiles])
    held = sum(value.nbytes for value in vars(blend).values() if isinstance(value, np.ndarray))
    assert held <= 4 * 4 * 255 * 3000
