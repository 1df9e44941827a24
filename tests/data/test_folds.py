"""Folds that follow declared ground, on names alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from segshrink.data.folds import folds, independent_groups, training_groups, unseen
from segshrink.errors import ConfigError

GROUPS = {
    "t4": frozenset({"4a", "4b"}),
    "t6": frozenset({"6a"}),
    "t8": frozenset({"8a", "8b", "8c"}),
    "judged": frozenset({"2a"}),
}
OVERLAPS = (frozenset({"4b", "8a"}),)


def dataset(names="4a 4b 6a 8a 8b 8c", groups=GROUPS, overlaps=OVERLAPS, leaking=False):
    train = [SimpleNamespace(name=name, image=Path(name)) for name in names.split()]
    description = SimpleNamespace(name="fields")
    return SimpleNamespace(train=train, groups=groups, overlaps=overlaps, leaking=leaking, description=description)


def test_folds_hold_whole_groups_and_about_equally_many_images():
    assert folds(dataset(), 3) == [{"4a", "4b"}, {"6a"}, {"8a", "8b", "8c"}]
    assert folds(dataset(), 2) == [{"4a", "4b", "6a"}, {"8a", "8b", "8c"}]


def test_images_of_no_group_are_groups_by_themselves():
    assert training_groups(dataset("a b", groups={})) == {"a": {"a"}, "b": {"b"}}
    assert folds(dataset("a b c", groups={}), 3) == [{"a"}, {"b"}, {"c"}]


def test_images_of_no_group_that_show_the_same_ground_are_one():
    overlaps = (frozenset({"a", "c"}), frozenset({"d", "c"}))
    assert training_groups(dataset("a b c d", groups={}, overlaps=overlaps)) == {"a": {"a", "c", "d"}, "b": {"b"}}
    assert training_groups(dataset("4a 4b 8a"))["t4"] == {"4a", "4b"}  # declared groups stay as they are


def test_too_many_folds_and_patches_are_refused():
    with pytest.raises(ConfigError, match=r"3 groups \(t4, t6, t8\)"):
        folds(dataset(), 4)
    with pytest.raises(ConfigError, match="patches"):
        folds(dataset(leaking=True), 2)


def test_an_image_is_unseen_only_where_nothing_of_its_group_and_no_overlap_was_learned_from():
    assert unseen(dataset(), {"6a", "8a", "8b", "8c"}) == {"4a"}  # 4b shows ground of 8a
    assert unseen(dataset(), {"6a", "8b"}) == {"4a", "4b"}  # 8a wasn't learned from, and yet its group was seen
    assert unseen(dataset(), {"4a", "4b", "8a"}) == {"6a"}


def test_groups_that_overlap_are_not_independent():
    assert independent_groups(GROUPS, OVERLAPS) == [["judged"], ["t4", "t8"], ["t6"]]
    assert independent_groups(GROUPS, [frozenset({"4a", "6a"}), frozenset({"6a", "8c"})]) == [
        ["judged"],
        ["t4", "t6", "t8"],
    ]
    assert independent_groups(GROUPS, ()) == [["judged"], ["t4"], ["t6"], ["t8"]]
