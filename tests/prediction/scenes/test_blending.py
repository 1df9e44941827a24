from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segshrink.prediction.scenes.tiles import RollingBlend, Weights, lay_out
from segshrink.tiling import Blend, cosine_weights

quick = settings(max_examples=30)


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


def test_holds_no_more_than_what_two_rows_of_tiles_share():
    spans = lay_out(10_000, 3000, tile=256, overlap=32, align=1, centered=False, span_pixels=10**6)
    blend = RollingBlend(4, [tile for span in spans for tile in span.tiles])
    held = sum(value.nbytes for value in vars(blend).values() if isinstance(value, np.ndarray))
    assert held <= 4 * 4 * 255 * 3000
