"""Descriptions: what they keep, and that no file's can do more than be refused in one sentence."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.image_distribution import ImageDistribution
from segshrink.model_description import ModelDescription, Normalization
from segshrink.prediction.exported import read_description


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": [value]}
    return value


# What no description holds in these places.
ODD = (
    None, True, False, 0, -1, 1, 3.7, 10**9, 10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 1e308,
    5e-324, 1e-30, "", "3", "inf", "\x1b[31mred", "\ud800", "a\nb", "x" * 100_000, [], [[]], {}, {"a": 1}, [1, "2"],
    [None], list(range(300)), [1e400], nested(20), nested(60),
)  # fmt: skip


def described(**changes):
    classes = ClassMap.build([("a", None, None), ("b", None, None)])
    return ModelDescription("unet", classes, 1, Normalization((0.0,), (1.0,)), 8, **changes)


def whole():
    structure = {"layers": {"head": {"out_channels": 2}}, "parameters": {"scale": [1]}, "removed": ["block"]}
    return described(
        options={"width": 8, "channels": [4, 2]},
        band_names=("red",),
        resolution=0.3,
        scaling=((0.1, 0.0),),
        structure=structure,
        images=ImageDistribution(9, 0, 255, (1.0, 2.0, 3.0), (0.5, 0.5, 0.5), (1, 2), (0.25,)),
    ).to_dict()


def places(value, path=()):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*path, key))


def changed(mapping, path, value):
    """Put a value at a path; ``...`` takes the place out."""
    result = copy.deepcopy(mapping)
    owner = result
    for key in path[:-1]:
        owner = owner[key]
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return result


def test_the_resolution_is_kept_and_may_be_absent():
    description = described(resolution=0.3)
    assert ModelDescription.from_dict(description.to_dict()) == description
    older = described().to_dict()
    del older["resolution"]
    assert ModelDescription.from_dict(older).resolution is None


def test_statistics_of_the_images_are_kept_and_may_be_absent():
    known = ModelDescription.from_dict(whole())
    assert known.images.mean == (1, 2, 3)
    assert ModelDescription.from_dict(known.to_dict()) == known
    assert "images" not in described().to_dict(), "what was written of older models stays the same"
    assert ModelDescription.from_dict(described().to_dict()).images is None


@pytest.mark.parametrize("resolution", [0.0, -1.0, float("nan"), float("inf"), 1e-9, 1e9, 10**400])
def test_a_senseless_resolution_says_so(resolution):
    with pytest.raises(ModelError, match="meters per pixel"):
        described(resolution=resolution)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bands", 0), ("bands", -1), ("bands", 10**9), ("bands", 10**400),
        ("stride", 0), ("stride", -8), ("stride", 10**9), ("stride", 10**400),
        ("dtype", "complex64"), ("dtype", "x" * 10**6), ("dtype", "object"),
        ("id", ""), ("id", "x" * 10**6), ("id", "unet\x1b[2J"), ("band_names", ("red\n",)), ("band_names", ("\ud800",)),
        ("options", nested(200)), ("structure", nested(200)),
    ],
)  # fmt: skip
def test_no_description_holds_what_no_model_is(field, value):
    with pytest.raises(ModelError) as caught:
        replace(described(), **{field: value})
    assert len(str(caught.value)) < 1100
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["3", 3.0, True, None, [3], float("inf"), 1e400])
@pytest.mark.parametrize("field", ["bands", "stride"])
def test_counts_are_whole_numbers(field, value):
    with pytest.raises(ModelError, match=field):
        ModelDescription.from_dict({**whole(), field: value})


@pytest.mark.parametrize("std", [0.0, -1.0, 1e-300, 1e300, float("inf"), float("nan")])
def test_a_normalization_can_be_divided_by_in_float32(std):
    with pytest.raises(ModelError, match="normalization needs"):
        Normalization((0.0,), (std,))


def test_every_change_of_one_place_is_read_or_refused():
    mapping = whole()
    paths = [path for path in places(mapping) if path]
    assert {check(changed(mapping, path, value)) for path in paths for value in (..., *ODD)} == {True, False}


def test_random_changes_are_read_or_refused():
    draw, read = random.Random(7), set()
    for _ in range(500):
        mapping = whole()
        for _ in range(draw.randint(1, 4)):
            path = draw.choice([path for path in places(mapping) if path])
            mapping = changed(mapping, path, draw.choice((..., *ODD, *mapping.values())))
        read.add(check(mapping))
    assert read == {True, False}


@pytest.mark.parametrize("content", ["[]", "null", "1", '"text"', "[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{"])
def test_metadata_that_hold_no_description_are_refused(content, tmp_path):
    with pytest.raises(ModelError, match=r"file\.onnx"):
        read_description(content, tmp_path / "file.onnx")


def check(mapping):
    """Tell whether a description is read; then it can be written and read again, else it is refused in one sentence."""
    try:
        description = ModelDescription.from_dict(mapping)
    except ModelError as error:
        refusal = str(error)
        if not refusal.isprintable() or len(refusal) > 1100:
            pytest.fail(f"no sentence: {refusal}")
        return False
    assert ModelDescription.from_dict(json.loads(json.dumps(description.to_dict()))).to_dict() == description.to_dict()
    return True
