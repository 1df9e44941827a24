"""Crops against a pixel-by-pixel reference, Pillow's resampling and numpy's padding."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segshrink.data.crops import CropPlan, cut, inside, plan_crop

plans = st.builds(
    CropPlan,
    sample=st.just(0),
    row=st.integers(-9, 10),
    col=st.integers(-9, 12),
    height=st.integers(10, 40),
    width=st.integers(10, 40),
    size=st.integers(1, 24),
    mirror_rows=st.booleans(),
    mirror_cols=st.booleans(),
    turns=st.integers(0, 3),
)


def scene(height: int, width: int, *channels: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels)).astype(dtype)


def turned_back(row: int, col: int, plan: CropPlan) -> tuple[int, int]:
    """Where the crop's pixel (row, col) lay before turning and mirroring, one quarter turn at a time."""
    last = plan.size - 1
    for _ in range(plan.turns):
        # Anticlockwise: what was in the last column is now in the first row.
        row, col = col, last - row
    if plan.mirror_cols:
        col = last - col
    if plan.mirror_rows:
        row = last - row
    return row, col


@settings(max_examples=150)
@given(plan=plans)
def test_nearest_agrees_with_a_loop_over_pixels(plan: CropPlan) -> None:
    mask = scene(12, 14)
    crop = cut(mask, plan, fill=7, order="nearest")
    valid = inside(plan, (12, 14))
    assert crop.shape == valid.shape == (plan.size, plan.size)
    for row in range(plan.size):
        for col in range(plan.size):
            y, x = turned_back(row, col, plan)
            y = plan.row + int((y + 0.5) * plan.height / plan.size)
            x = plan.col + int((x + 0.5) * plan.width / plan.size)
            within = 0 <= y < 12 and 0 <= x < 14
            assert valid[row, col] == within
            assert crop[row, col] == (mask[y, x] if within else 7)


@pytest.mark.parametrize("side", [40, 64, 91, 150])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_linear_agrees_with_pillow(side: int, dtype: type) -> None:
    image = scene(160, 170, dtype=dtype)
    crop = cut(image, CropPlan(0, 5, 9, side, side, 64))
    expected = Image.fromarray(image[5 : 5 + side, 9 : 9 + side]).resize((64, 64), Image.Resampling.BILINEAR)
    # Bytes are rounded once more between the two directions.
    assert np.abs(crop.astype(float) - np.asarray(expected, float)).max() <= (1 if dtype is np.uint8 else 1e-3)


def test_shrinking_a_fine_pattern_gives_grey_not_moire() -> None:
    checks = np.indices((256, 256)).sum(axis=0) % 2 * 200
    crop = cut(checks.astype(np.uint8), CropPlan(0, 0, 0, 256, 256, 64))
    assert np.abs(crop.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("side", [20, 32, 50])
def test_channels_are_cut_alike(channels: int, dtype: type, side: int) -> None:
    image = scene(60, 60, channels, dtype=dtype)
    plan = CropPlan(0, -3, 8, side, side, 32, mirror_cols=True, turns=1)
    crop = cut(image, plan)
    assert crop.dtype == dtype
    assert crop.flags.c_contiguous
    for channel in range(channels):
        alone = cut(image[..., channel], plan)
        # Torch's byte kernels round differently for other numbers of channels.
        tolerance = 1 if dtype == np.uint8 else 0 if np.issubdtype(dtype, np.integer) else 1e-3 * 256
        np.testing.assert_allclose(crop[..., channel].astype(float), alone.astype(float), atol=tolerance, rtol=0)


def test_border_repeats_the_edge_or_takes_a_value() -> None:
    image = scene(10, 12, 3)
    plan = CropPlan(0, -4, -2, 20, 20, 20)
    margins = ((4, 6), (2, 6))
    np.testing.assert_array_equal(cut(image, plan), np.pad(image, (*margins, (0, 0)), mode="edge"))
    filled = cut(image, plan, fill=[1, 2, 3])
    for band in range(3):
        expected = np.pad(image[..., band], margins, constant_values=band + 1)
        np.testing.assert_array_equal(filled[..., band], expected)


def test_a_layer_stays_over_its_image() -> None:
    rng = np.random.default_rng(3)
    image = scene(90, 80, 3)
    for _ in range(30):
        plan = plan_crop(rng, 0, shape=(90, 80), size=48, scale=(0.5, 2.0), flips=True, quarter_turns=True)
        np.testing.assert_allclose(cut(image.astype(np.float32), plan), cut(image, plan), atol=2)


def test_crop_owns_its_memory() -> None:
    image = scene(40, 40, 3)
    image.flags.writeable = False
    for plan in (CropPlan(0, 0, 0, 32, 32, 32), CropPlan(0, 0, 0, 32, 32, 32, turns=2), CropPlan(0, 0, 0, 40, 40, 32)):
        crop = cut(image, plan)
        crop[...] = 0
        assert not np.shares_memory(crop, image)
    assert image.any()


def test_a_crop_reads_its_window_only(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(30_000 * 30_000 * 3)  # sparse: takes no space
    big = np.memmap(tmp_path / "big", dtype=np.uint8, mode="r", shape=(30_000, 30_000, 3)).view(np.ndarray)
    for row in (0, 29_900):
        tracemalloc.start()
        cut(big, CropPlan(0, row, 15_000, 300, 300, 256))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3_000_000


def test_window_outside_the_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        cut(scene(10, 10), CropPlan(0, 10, 0, 5, 5, 5))


@settings(max_examples=200)
@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    center=st.none() | st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_plans_stay_inside_or_cover_the_scene(
    seed: int, height: int, width: int, center: tuple[float, float] | None
) -> None:
    pixel = None if center is None else (int(center[0] * height), int(center[1] * width))
    rng = np.random.default_rng(seed)
    plan = plan_crop(rng, 4, shape=(height, width), size=64, scale=(0.5, 2.0), center=pixel)
    assert plan.sample == 4
    assert 32 <= plan.height == plan.width <= 128
    for start, side, extent in ((plan.row, plan.height, height), (plan.col, plan.width, width)):
        if side <= extent:
            assert 0 <= start <= extent - side
        else:
            assert start <= 0
            assert start + side >= extent
    if pixel is not None:
        assert plan.row <= pixel[0] < plan.row + plan.height
        assert plan.col <= pixel[1] < plan.col + plan.width


def test_center_is_in_the_middle_where_the_border_allows() -> None:
    plan = plan_crop(np.random.default_rng(0), 0, shape=(500, 500), size=64, center=(200, 300))
    assert (plan.row, plan.col) == (200 - 32, 300 - 32)


def test_plans_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        plan_crop(rng, 0, shape=(67, 300), size=64, scale=(0.5, 2.0), flips=True, quarter_turns=True)
        for _ in range(4000)
    ]
    assert abs(np.mean([plan.height < 64 for plan in drawn]) - 0.5) < 0.03
    assert abs(np.mean([plan.mirror_rows for plan in drawn]) - 0.5) < 0.03
    assert abs(np.mean([plan.mirror_cols for plan in drawn]) - 0.5) < 0.03
    assert np.abs(np.bincount([plan.turns for plan in drawn]) / 4000 - 0.25).max() < 0.03
    fixed = [plan_crop(rng, 0, shape=(67, 300), size=64).row for _ in range(4000)]
    assert np.abs(np.bincount(fixed) / 4000 - 0.25).max() < 0.03
