from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from segshrink.imagery.polygonize import Regions, Strip, find_regions
from segshrink.imagery.polygons import with_all_corners

shapely = pytest.importorskip("shapely")

MAPS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 2, 255]))


def regions_of(index: NDArray[np.uint8], step: int, confidence: Any = None) -> Regions:
    strips = (
        Strip(row, index[row : row + step], None if confidence is None else confidence[row : row + step])
        for row in range(0, len(index), step)
    )
    return Regions.joined(list(find_regions(strips)))


def flooded(index: NDArray[np.uint8]) -> list[tuple[int, frozenset[tuple[int, int]]]]:
    """Connected pixels by flooding: class and pixels of every region."""
    left = {(row, col) for row, col in np.argwhere(index != 255).tolist()}
    found = []
    while left:
        start = left.pop()
        region, border = {start}, [start]
        while border:
            row, col = border.pop()
            for near in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
                if near in left and index[near] == index[start]:
                    left.remove(near)
                    region.add(near)
                    border.append(near)
        found.append((int(index[start]), frozenset(region)))
    return found


def pixels_in(polygon: Any, shape: tuple[int, ...]) -> frozenset[tuple[int, int]]:
    rows, cols = np.indices(shape)
    inside = shapely.contains_xy(polygon, cols.ravel() + 0.5, rows.ravel() + 0.5).reshape(shape)
    return frozenset((row, col) for row, col in np.argwhere(inside).tolist())


@given(index=MAPS, step=st.integers(1, 15))
@settings(max_examples=60)
def test_regions_are_the_connected_pixels_whatever_the_strips(index: NDArray[np.uint8], step: int) -> None:
    regions = regions_of(index, step)
    assert shapely.is_valid(regions.polygons).all()
    found = Counter(
        (int(number), pixels_in(polygon, index.shape))
        for number, polygon in zip(regions.classes, regions.polygons, strict=True)
    )
    assert found == Counter(flooded(index))


@given(index=MAPS, step=st.integers(1, 15))
@settings(max_examples=60)
def test_strips_leave_no_corners(index: NDArray[np.uint8], step: int) -> None:
    def texts(regions: Regions) -> Counter[str]:
        return Counter(polygon.wkt for polygon in shapely.normalize(regions.polygons))

    assert texts(regions_of(index, step)) == texts(regions_of(index, len(index)))


@given(index=MAPS, step=st.integers(1, 15), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_confidence_is_summed_over_the_pixels_where_it_is_known(index: NDArray[np.uint8], step: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 255, index.shape).astype(np.uint8)
    known = rng.random(index.shape) < 0.7
    regions = regions_of(index, step, np.ma.masked_array(confidence, ~known))
    for polygon, total, count in zip(regions.polygons, regions.totals, regions.counts, strict=True):
        rows, cols = (list(part) for part in zip(*pixels_in(polygon, index.shape), strict=True))
        assert count == known[rows, cols].sum()
        assert total == confidence[rows, cols][known[rows, cols]].sum(dtype=int)


def test_open_regions_only_are_held() -> None:
    index = np.indices((40, 6)).sum(axis=0).astype(np.uint8) % 2
    index[:, 0] = 2
    parts = list(find_regions(Strip(row, index[row : row + 4]) for row in range(0, 40, 4)))
    assert [len(part) for part in parts] == [15, *[20] * 9, 6]
    assert parts[-1].classes.tolist().count(2) == 1


@given(index=MAPS)
@settings(max_examples=60)
def test_neighbors_get_each_others_corners(index: NDArray[np.uint8]) -> None:
    regions = regions_of(index, len(index))
    if len(regions) == 0:
        return
    shared = with_all_corners(regions.polygons)
    assert shapely.equals(shared, regions.polygons).all()
    assert shapely.coverage_is_valid(shared)
    corners = {tuple(point) for point in shapely.get_coordinates(regions.polygons).tolist()}
    for polygon in shared:
        on_it = {point for point in corners if polygon.boundary.distance(shapely.Point(point)) == 0}
        assert on_it <= {tuple(point) for point in shapely.get_coordinates(polygon).tolist()}


def test_long_edges_get_corners_of_whole_pixels() -> None:
    (polygon,) = with_all_corners(np.array([shapely.box(3, 7, 3 + 49, 7 + 107)]))
    corners = shapely.get_coordinates(polygon)
    np.testing.assert_array_equal(corners, corners.astype(int))
    assert len(corners) == 2 * (49 + 107) + 1


@pytest.mark.parametrize("step", [1, 2, 7])
def test_holes_that_touch_across_strips_stay_holes(step: int) -> None:
    for seed in range(25):
        index = np.random.default_rng(seed).integers(0, 2, (25, 25)).astype(np.uint8)
        regions = regions_of(index, step)
        assert shapely.is_valid(regions.polygons).all()
        found = Counter(polygon.wkt for polygon in shapely.normalize(regions.polygons))
        assert found == Counter(polygon.wkt for polygon in shapely.normalize(regions_of(index, 25).polygons))
