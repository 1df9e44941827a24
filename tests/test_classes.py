from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.colors import format_color, parse_color
from segshrink.errors import ConfigError, DataError

AERIAL = ClassMap.build(
    [("Building", "#3C1098", None), ("Land", "#8429F6", None), ("Road", "#6ec1e4", None)],
    ["#9B9B9B", "#000000"],
)
NUMBERS = ClassMap.build([("soil", None, 10), ("crop", None, 3000), ("wood", None, 0)], [7])


def slow_colors(mask: NDArray[np.uint8], classes: ClassMap) -> NDArray[np.uint8]:
    """Encode pixel by pixel: the definition."""
    index = np.empty(mask.shape[:2], dtype=np.uint8)
    for row, col in np.ndindex(*mask.shape[:2]):
        color = tuple(int(part) for part in mask[row, col, :3])
        index[row, col] = classes.colors.index(color) if color in classes.colors else 255
    return index


def test_classes_without_values_and_with_colors_are_color_masks() -> None:
    assert AERIAL.values is None
    assert AERIAL.colors == ((60, 16, 152), (132, 41, 246), (110, 193, 228))
    assert AERIAL.ignored_colors == ((155, 155, 155), (0, 0, 0))
    assert len(AERIAL) == 3


@pytest.mark.parametrize("bands", [3, 4])
def test_colors_become_indices(bands: int) -> None:
    rng = np.random.default_rng(0)
    table = np.array([*AERIAL.colors, *AERIAL.ignored_colors], dtype=np.uint8)
    mask = table[rng.integers(0, 5, (37, 23))]
    if bands == 4:
        mask = np.concatenate([mask, rng.integers(0, 256, (37, 23, 1)).astype(np.uint8)], axis=2)
    np.testing.assert_array_equal(AERIAL.encode(mask), slow_colors(mask, AERIAL))
    # Views that aren't contiguous are masks as well.
    np.testing.assert_array_equal(AERIAL.encode(mask[::-1, ::2]), slow_colors(mask[::-1, ::2], AERIAL))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 0xFFFFFF), min_size=1, max_size=255, unique=True), st.integers(0, 2**32 - 1))
def test_indices_survive_color_and_back(packed: list[int], seed: int) -> None:
    classes = ClassMap.build([(f"c{color}", f"#{color:06X}", None) for color in packed])
    index = np.random.default_rng(seed).integers(0, len(packed), (9, 11)).astype(np.uint8)
    np.testing.assert_array_equal(classes.encode(classes.colorize(index)), index)


def test_large_masks_are_read_row_by_row_the_same() -> None:
    index = np.random.default_rng(1).integers(0, 3, (2100, 1001)).astype(np.uint8)
    index[1000:1010] = IGNORE_INDEX
    np.testing.assert_array_equal(AERIAL.encode(AERIAL.colorize(index)), index)


def test_an_undeclared_color_is_counted() -> None:
    mask = AERIAL.colorize(np.zeros((1000, 700), dtype=np.uint8))
    mask[0, :5] = (255, 0, 0)
    mask[999, :7] = (1, 2, 3)
    mask[500, 3] = (255, 0, 0)
    with pytest.raises(UndeclaredError) as caught:
        AERIAL.encode(mask)
    assert list(caught.value.found.items()) == [("#010203", 7), ("#FF0000", 6)]
    assert "#010203 (7 pixels), #FF0000 (6 pixels)" in str(caught.value)
    assert isinstance(caught.value, DataError)


def test_undeclared_errors_travel_between_processes() -> None:
    error = UndeclaredError("a.png: undeclared", {"#FF0000": 2})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.found) == (str(error), error.found)


def test_a_smoothed_mask_is_explained() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    with pytest.raises(UndeclaredError, match=r"and 40.. more; .* saved as JPEG or resized smoothly") as caught:
        AERIAL.encode(mask)
    assert sum(caught.value.found.values()) == 64 * 64


def test_class_numbers_in_a_mask_of_color_classes_are_explained() -> None:
    with pytest.raises(UndeclaredError, match="if they are class numbers, give the classes a value"):
        AERIAL.encode(np.ones((4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="uint16 numbers; give the classes a value"):
        AERIAL.encode(np.ones((4, 4), dtype=np.uint16))


def test_gray_and_two_valued_masks_of_color_classes() -> None:
    classes = ClassMap.build([("no", "#000000", None), ("yes", "#FFFFFF", None)])
    mask = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    for form in (mask, mask > 0, mask[:, :, np.newaxis], np.stack([mask] * 3, axis=2)):
        assert classes.encode(form).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_values_become_indices(dtype: str) -> None:
    mask = np.array([[10, 3000, 0], [7, 255, 10]], dtype=dtype)
    assert NUMBERS.encode(mask).tolist() == [[0, 1, 2], [255, 255, 0]]
    assert NUMBERS.encode(mask[:, :, np.newaxis]).dtype == np.uint8


@pytest.mark.parametrize("value", [-1, -32768, 1, 3001, 65535])
def test_undeclared_values_are_counted(value: int) -> None:
    mask = np.full((3, 5), 10, dtype=np.int32)
    mask[1] = value
    with pytest.raises(UndeclaredError) as caught:
        NUMBERS.encode(mask)
    assert caught.value.found == {value: 5}


@pytest.mark.parametrize("value", [70000, 2**40, -(2**40), 1e30, -1e30, np.inf])
def test_values_beyond_16_bits_are_undeclared(value: float) -> None:
    mask = np.full((2, 2), 10, dtype=np.float64 if isinstance(value, float) else np.int64)
    mask[0, 0] = value
    with pytest.raises(UndeclaredError):
        NUMBERS.encode(mask)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_fractions_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="whole numbers"):
        NUMBERS.encode(np.array([[10.0, value]]))


def test_index_classes_without_values_count_from_zero_and_ignore_255() -> None:
    classes = ClassMap.build([("a", None, None), ("b", "#FF0000", None)])
    assert classes.values == (0, 1)
    assert classes.ignored_values == (255,)
    assert classes.encode(np.array([[0, 1, 255]], dtype=np.uint8)).tolist() == [[0, 1, 255]]
    assert classes.encode(np.array([[False, True]])).tolist() == [[0, 1]]


def test_255_is_a_class_if_declared() -> None:
    classes = ClassMap.build([("a", None, 0), ("b", None, 255)])
    assert classes.ignored_values == ()
    assert classes.encode(np.array([[0, 255]], dtype=np.uint8)).tolist() == [[0, 1]]


def test_index_classes_take_gray_saved_as_rgb_but_no_colors() -> None:
    gray = np.full((2, 2, 3), 10, dtype=np.uint8)
    assert NUMBERS.encode(gray).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(DataError, match="found a mask in colors"):
        NUMBERS.encode(AERIAL.colorize(np.zeros((2, 2), dtype=np.uint8)))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="found shape"):
        AERIAL.encode(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("kind", ["color", "index"])
def test_mask_kind_decides_when_colors_stand_for_drawing(kind: Any) -> None:
    classes = ClassMap.build([("a", "#FF0000", None), ("b", "#00FF00", None)], mask_kind=kind)
    assert classes.values == (None if kind == "color" else (0, 1))
    assert classes.colors == ((255, 0, 0), (0, 255, 0))


@pytest.mark.parametrize(
    ("entries", "ignore", "kind", "message"),
    [
        ([("a", None, 1), ("a", None, 2)], [], "auto", "class name 'a' is given twice"),
        ([("a", None, 1), ("b", None, 1)], [], "auto", "mask value 1 is given twice"),
        ([("a", "#FF0000", None), ("b", "#ff0000", None)], [], "auto", "mask color '#FF0000' is given twice"),
        ([("a", "#FF0000", None), ("b", "#000000", None)], ["#000000"], "auto", "'#000000' is given twice"),
        ([("a", None, 1), ("b", None, None)], [], "auto", "class 'b' has no value"),
        ([("a", "#FF0000", None), ("b", None, None)], [], "color", "class 'b' has no color"),
        ([("a", "#FF0000", None), ("b", "#00FF00", None)], [3], "auto", "found the value 3; give '#RRGGBB'"),
        ([("a", None, 1), ("b", None, 2)], ["#FF0000"], "auto", "found the color #FF0000; give a number"),
        ([("a", None, 1), ("b", None, 70000)], [], "auto", "0 to 65535, found 70000"),
        ([("a", "red", None)], [], "auto", "must look like '#3C1098', found 'red'"),
        ([], [], "auto", "1 to 255 classes, found 0"),
        ([(str(number), None, None) for number in range(256)], [], "auto", "1 to 255 classes, found 256"),
    ],
)
def test_contradictions_are_refused(entries: Any, ignore: Any, kind: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassMap.build(entries, ignore, mask_kind=kind)


def test_default_colors_are_distinct_and_not_those_given() -> None:
    given_color = "#E69F00"
    classes = ClassMap.build([("0", given_color, None), *((str(number), None, None) for number in range(1, 255))])
    assert len(set(classes.colors)) == 255
    assert classes.colors[0] == parse_color(given_color)
    assert classes.ignore_color not in classes.colors


def test_ignored_pixels_are_drawn_in_a_color_of_no_class() -> None:
    assert AERIAL.ignore_color == (155, 155, 155)
    assert NUMBERS.ignore_color == (0, 0, 0)
    black = ClassMap.build([("a", "#000000", 0), ("b", "#808080", 1)])
    assert black.ignore_color not in black.colors
    drawn = AERIAL.colorize(np.array([[0, 255]], dtype=np.uint8))
    assert drawn.tolist() == [[[60, 16, 152], [155, 155, 155]]]
    assert drawn.dtype == np.uint8


def test_palette_has_256_colors_by_index() -> None:
    palette = np.array(AERIAL.palette()).reshape(256, 3)
    assert palette[:3].tolist() == [list(color) for color in AERIAL.colors]
    assert tuple(palette[IGNORE_INDEX]) == AERIAL.ignore_color


@pytest.mark.parametrize("classes", [AERIAL, NUMBERS], ids=["colors", "values"])
def test_class_maps_survive_json(classes: ClassMap) -> None:
    mapping = json.loads(json.dumps(classes.to_dict()))
    assert ClassMap.from_dict(mapping) == classes


@pytest.mark.parametrize(
    "mapping",
    [{}, {"names": ["a"]}, {"names": ["a"], "colors": ["red"]}, {"names": ["a", "b"], "colors": ["#000000"]}, [], None],
)
def test_damaged_class_maps_are_refused(mapping: Any) -> None:
    with pytest.raises(ConfigError):
        ClassMap.from_dict(mapping)


@pytest.mark.parametrize("text", ["#3C1098", "#ffffff", "#000000"])
def test_colors_are_read_and_written(text: str) -> None:
    assert format_color(parse_color(text)) == text.upper()


@pytest.mark.parametrize(
    "name",
    [
        "a\x1b[2J",
        "a\nb",
        "a\tb",
        "\udce9",
        "a\u202eb",
        "\u2066a",
        "\ufeffa",
        "a\u2028b",
        "a\x9bb",
        "\x00",
        "a\uffffb",
    ],
)
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    for make in (
        lambda: ClassMap.build([("Road", None, 0), (name, None, 1)]),
        lambda: ClassMap.from_dict({"names": ["Road", name], "colors": ["#000000", "#FFFFFF"]}),
    ):
        with pytest.raises(ConfigError, match=r"class 2 .*U\+") as caught:
            make()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["", "  ", "x" * 129])
def test_names_of_no_or_too_many_letters_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"class 1 .*1 to 128 letters"):
        ClassMap.build([(name, None, 0), ("Road", None, 1)])


def test_names_in_any_script_are_kept() -> None:
    names = ("Straße", "道路", "می\u200cخواهم", "क्\u200dष", "$\\frac{1}{2}$", "a & <b>", "🌳", "x" * 128)
    assert ClassMap.build([(name, None, number) for number, name in enumerate(names)]).names == names


def test_names_alone_are_index_classes_in_order() -> None:
    assert ClassMap.build(["road", "sky"]) == ClassMap.build([("road", None, None), ("sky", None, None)])
    assert ClassMap.build(["road", "sky"]).values == (0, 1)
