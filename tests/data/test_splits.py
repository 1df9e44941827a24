"""Dividing images, checked on paths alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segshrink.config import Split
from segshrink.data import inspect_dataset, open_dataset
from segshrink.data.split_guess import guess_split
from segshrink.data.splits import divide, divide_patches
from segshrink.errors import DataError

IMAGES = [f"Tile {tile}/images/part_{part}.jpg" for tile in (2, 4, 5) for part in (1, 2)] + ["odd/lone.v2.jpg"]


def chosen(split, images=IMAGES, root=Path("unused")):
    division = divide(Split.model_validate(split), images, root=root)
    return {part: [images[position] for position in getattr(division, part)] for part in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("Tile 4", IMAGES[2:4]),
        ("Tile 4/images/", IMAGES[2:4]),
        ("./Tile 4", IMAGES[2:4]),
        ("Tile [45]", IMAGES[2:6]),
        ("Tile 4/*/part_1.jpg", IMAGES[2:3]),
        ("*/images/part_2.jpg", [IMAGES[1], IMAGES[3], IMAGES[5]]),
        ("Tile 4/images/part_1", IMAGES[2:3]),
        ("Tile 4/images/part_1.jpg", IMAGES[2:3]),
        ("lone.v2", IMAGES[6:]),
        ("lone.v2.jpg", IMAGES[6:]),
        ("part_*", IMAGES[:6]),
        ("[!o]*", IMAGES[:6]),
        ("/mnt/x/Tile 4/images/part_1.jpg", IMAGES[2:3]),
        ("images/part_1.jpg", []),
        (".", IMAGES),
    ],
)
def test_entries(entry, expected):
    assert chosen({"train": [entry], "val": ["none"]})["train"] == expected


def test_text_files_hold_the_same_entries(tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/train.txt").write_text("# half\nTile 2\n\nlone.v2\n")
    (tmp_path / "sets/val.txt").write_text("Tile 4/images/part_1\n")
    split = {"train": "sets/train.txt", "val": ["sets/val.txt"], "test": "Tile 5"}
    division = divide(Split.model_validate(split), IMAGES, root=tmp_path)
    assert division == divide(
        Split(train=["Tile 2", "lone.v2"], val=["Tile 4/images/part_1"], test=["Tile 5"]), IMAGES, root=tmp_path
    )
    assert division.problems == ()
    assert (division.train, division.val, division.test) == ((0, 1, 6), (2,), (4, 5))


def test_leave_one_group_out():
    groups = {"a": ["Tile 2", "odd"], "b": ["Tile 4"], "c": ["Tile 5"]}
    judged = []
    for held_out in groups:
        parts = chosen({"groups": groups, "held_out": held_out})
        assert sorted(parts["train"] + parts["val"]) == sorted(IMAGES)
        judged += parts["val"]
    assert sorted(judged) == sorted(IMAGES)
    assert chosen({"groups": groups, "held_out": "b"})["val"] == IMAGES[2:4]


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ({"train": ["Tile 2"], "val": ["Tile 9", "odd"]}, r"split\.val: 'Tile 9' matches no image; did you mean 'Tile"),
        ({"train": ["zzz", "yyy"], "val": ["odd"]}, r"split\.train: 'zzz', 'yyy' match no image; folders with images"),
        ({"train": ["."], "val": ["Tile 4"]}, r"Tile 4/images/part_1\.jpg, .* in both 'train' and 'val'"),
        ({"train": ["odd"], "val": ["Tile 4"], "test": ["Tile 4"]}, r"in both 'val' and 'test'"),
        ({"train": ["part_1"], "val": ["odd"]}, r"'part_1' is the stem of 3 images"),
        ({"train": ["images/part_1"], "val": ["odd"]}, r"'images/part_1' is the end of 3 images"),
        ({"train": "gone.txt", "val": ["odd"]}, r"can't read the list file .*gone\.txt of 'split\.train'"),
        ({"groups": {"a": ["Tile 2"], "b": ["."]}, "held_out": "a"}, r"split\.groups: .* in both 'a' and 'b'"),
    ],
)
def test_what_is_wrong_is_told_and_the_rest_divided(split, told):
    division = divide(Split.model_validate(split), IMAGES, root=Path("unused"))
    assert len(division.problems) == 1
    assert re.search(told, division.problems[0])
    assert division.val or division.test or division.train


def test_open_dataset_refuses_what_is_told(painter):
    painter.pairs("north/a", "south/a")
    with pytest.raises(DataError, match=r"painted: split: north/images/a\.png in both 'train' and 'val'"):
        open_dataset(painter.describe(split={"train": ["."], "val": ["north"]}))


def test_of_two_ends_of_a_path_the_longer_counts():
    images = ["1.jpg", "x/1.jpg", "x/2.jpg"]
    assert chosen({"train": ["/home/me/x/1.jpg"], "val": ["2"]}, images)["train"] == ["x/1.jpg"]
    assert chosen({"train": ["data/1"], "val": ["2"]}, images)["train"] == ["1.jpg"]


@given(seed=st.integers(0, 20))
def test_random_keeps_groups_on_one_side(seed):
    images = [f"{name}/{number}.png" for name in "abcd" for number in range(3)] + ["zone.png"]
    split = Split(random=0.4, seed=seed, groups={"ab": ["a", "b"], "c": ["c"]})
    division = divide(split, images, root=Path())
    sides = [{images[position][0] for position in part} for part in (division.train, division.val)]
    assert not sides[0] & sides[1] - {"d"}
    assert sum("a" in side and "b" in side for side in sides) == 1
    one = Split(random=0.4, groups={"all": ["."]})
    assert "different ground" in divide(one, images, root=Path()).problems[0]


@given(count=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_random_divides_whole_images_once(count, share, seed):
    images = [f"{number}.png" for number in range(count)]
    split = Split(random=share, seed=seed)
    division = divide(split, images, root=Path())
    assert sorted((*division.train, *division.val)) == list(range(count))
    assert division.train
    assert division.val
    assert abs(len(division.val) - share * count) <= 1
    assert division == divide(split, images, root=Path())


def test_random_depends_on_the_seed_and_needs_two_images():
    images = [f"{number}.png" for number in range(40)]
    judged = {divide(Split(random=0.3, seed=seed), images, root=Path()).val for seed in range(5)}
    assert len(judged) == 5
    assert "at least two images" in divide(Split(random=0.3), images[:1], root=Path()).problems[0]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 120)), min_size=1, max_size=4),
    side=st.integers(16, 50),
    share=st.floats(0.1, 0.9),
)
def test_patches_are_disjoint_squares_inside_their_image(sizes, side, share):
    expected = sum((height // side) * (width // side) for height, width in sizes)
    split = Split(patches=side, share=share)
    if expected < 2:
        with pytest.raises(DataError, match="take a smaller size"):
            divide_patches(sizes, split)
        return
    parts = divide_patches(sizes, split)
    covered = [np.zeros(size, dtype=int) for size in sizes]
    for position, window in (*parts.train, *parts.val):
        assert covered[position][window.slices].shape == (side, side)
        covered[position][window.slices] += 1
    assert max(cover.max() for cover in covered) == 1
    assert len(parts.train) + len(parts.val) == expected
    assert parts.train
    assert parts.val


def test_a_patches_data_set_is_labelled_as_leaking(painter):
    painter.pairs("north/a", "south/a", size=(40, 70))
    dataset = open_dataset(painter.describe(split={"patches": 16, "share": 0.25}))
    assert dataset.leaking
    assert (len(dataset.train), len(dataset.val)) == (12, 4)
    names = [sample.name for sample in (*dataset.train, *dataset.val)]
    assert len(set(names)) == 16
    assert {sample.image for sample in dataset.train} & {sample.image for sample in dataset.val}


@pytest.mark.parametrize(
    "split",
    [
        {"random": 0.34},
        {"patches": 16, "share": 0.25},
        {"groups": {"a": ["[a-c]"], "b": ["[d-f]"]}, "held_out": "b"},
    ],
)
def test_images_that_test_neither_train_nor_judge_before(painter, split):
    painter.pairs(*(f"{name}/{name}" for name in "abcdefgh"))
    description = painter.describe(split={**split, "test": ["g", "h/images/h.png"]})
    dataset = open_dataset(description)
    assert [sample.image.stem for sample in dataset.test] == ["g", "h"]
    assert all(sample.window is None for sample in dataset.test)
    assert {sample.image.stem for sample in (*dataset.train, *dataset.val)} == set("abcdef")
    parts = {part.name: part.samples for part in inspect_dataset(description).parts}
    assert parts["test"] == 2


def test_a_test_image_may_be_in_no_group():
    split = Split(groups={"a": ["Tile 2"], "b": ["Tile 4"]}, held_out="b", test=["Tile 4"])
    division = divide(split, IMAGES, root=Path("unused"))
    assert any("Tile 4" in problem and "'test'" in problem for problem in division.problems)


def test_random_draws_as_before_where_nothing_tests():
    images = [f"{number}.png" for number in range(20)]
    assert divide(Split(random=0.3, test=[]), images, root=Path()) == divide(Split(random=0.3), images, root=Path())
    missing = divide(Split(random=0.3, test=["nowhere"]), images, root=Path())
    assert "split.test" in missing.problems[0]


@pytest.mark.parametrize(
    "split", [{"random": 0.3, "val": ["a"]}, {"patches": 32, "val": ["a"]}, {"random": 0.3, "held_out": "a"}]
)
def test_keys_that_would_be_ignored_are_refused(split):
    with pytest.raises(ValueError, match="leave it out"):
        Split.model_validate(split)


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}.png" for name in ("tile_1", "tile_2", "tile_3", "tile_4", "tile_final", "site_1", "site_2")],
        [*(f"north/{number}.png" for number in range(4)), *(f"north/deep/{number}.png" for number in range(4, 7))],
    ],
    ids=["stems", "folders"],
)
def test_scenes_that_one_entry_means_together_are_not_divided(names, tmp_path):
    guess = guess_split(tmp_path, names, names, [], {})
    assert divide(Split(**guess.fields), names, root=tmp_path).problems == ()
    assert "random" in guess.fields
