"""Map tiles of the same ground are told by the numbers in their names."""

from __future__ import annotations

import pytest

from segshrink.data.spatial_overlap import connected_components, overlapping_footprints, overlapping_tiles
from segshrink.imagery import Georeference

# A tile, two of the four below it, one of theirs, and a neighbor: (zoom, x, y).
TILES = [(19, 315878, 264050), (20, 631756, 528100), (20, 631757, 528101), (21, 1263512, 1056200), (19, 315879, 264050)]


@pytest.mark.parametrize(
    "name", ["images/OAM-{x}-{y}-{z}.jpg", "{x}_{y}_{z}.tif", "sat/{z}/{x}/{y}.png", "2023-11-02-{z}-{x}-{y}.png"]
)
def test_tiles_within_each_other_show_the_same(name: str) -> None:
    assert overlapping_tiles([name.format(x=x, y=y, z=z) for z, x, y in TILES]) == [(0, 1, 2, 3)]


def test_tiles_of_the_same_numbers_show_the_same() -> None:
    assert overlapping_tiles(["before/5000-6000-14.png", "after/5001-6000-14.png", "after/5000-6000-14.png"]) == [
        (0, 2)
    ]


def test_a_zoom_between_may_be_missing() -> None:
    z, x, y = TILES[0]
    assert overlapping_tiles([f"{x}-{y}-{z}.png", f"{8 * x + 7}-{8 * y + 7}-{z + 3}.png"]) == [(0, 1)]
    assert overlapping_tiles([f"{8 * x}-{8 * y}-{z + 3}.png", f"{8 * x + 7}-{8 * y + 7}-{z + 3}.png"]) == []


@pytest.mark.parametrize(
    "names",
    [
        ["scene_0_512_14.png", "scene_0_512_15.png"],  # rows and columns of a grid
        ["scene_100_200_13.png", "other/scene_100_200_13.png", "scene_300_200_7.png"],
        ["2019-06-01.jpg", "2019-06-02.jpg"],
        ["5000-6000-14.png", "others/5000-6000-14.png", "lone.png"],
        ["5000-60000-14.png", "others/5000-60000-14.png"],  # beyond the south pole
    ],
)
def test_other_numbers_are_no_tiles(names: list[str]) -> None:
    assert overlapping_tiles(names) == []


def place(left: float, top: float, side: int = 10, crs: str | None = "map", turned: float = 0.0) -> Georeference:
    """Return where a square image with pixels of a meter lies."""
    return Georeference(side, side, crs, (1.0, turned, left, turned, -1.0, top))


def test_ground_that_two_images_share_is_told_with_its_share_of_the_smaller() -> None:
    here = {"a": place(0, 0), "turned": place(0, 0, turned=0.1), "nowhere": Georeference(10, 10)}
    there = {
        "half": place(5, 0),
        "inside": place(2, -2, side=4),
        "margin": place(9.6, 0),
        "beside": place(10, 0),
        "other map": place(0, 0, crs="other"),
        "turned": place(0, 0, turned=0.1),
        "nowhere": Georeference(10, 10),
    }
    assert overlapping_footprints(here, there) == [("a", "inside", 1.0), ("a", "half", 0.5)]
    assert overlapping_footprints(here, {}) == overlapping_footprints({}, there) == []


def test_things_are_joined_by_way_of_others() -> None:
    assert connected_components("abcde", ["ca", "x", "ec", "dx"]) == [["a", "c", "e"], ["b"], ["d"]]
    assert connected_components("ab", []) == [["a"], ["b"]]
