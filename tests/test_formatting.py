"""Names that would command a terminal, and sentences that are too long."""

from __future__ import annotations

import json
import os

import pytest

from segshrink.errors import ConfigError, DataError, FileError
from segshrink.formatting import listed, markdown, printable, printable_json, shortened

HOSTILE = "a\x1b[2J\x9b\u202eb\u2028c\ud800\x00\x7f\ufeff"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("Straße 1.tif", "서울 – 東京.png", "a'b\"c\\d", "🌳.jpg"):
        assert printable(name) == name
        assert json.loads(printable_json(name)) == name
        assert name in printable_json(name).replace("\\\\", "\\").replace('\\"', '"')


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert shown.isascii()
    assert shown.startswith("a\\x1b[2J\\x9b\\u202eb")
    assert printable("one\ntwo\tthree") == "one two three"
    assert printable("12\N{NO-BREAK SPACE}%") == "12\N{NO-BREAK SPACE}%"
    assert printable(os.fsdecode(b"caf\xe9.tif")) == "caf\\xe9.tif"


def test_json_gives_back_every_name() -> None:
    value = {HOSTILE: [os.fsdecode(b"caf\xe9.tif"), "\U000e0001 \n", 1.5, None]}
    text = printable_json(value)
    text.encode("utf-8")
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


def test_long_sentences_keep_their_start_and_end() -> None:
    sentence = "the file " + "x" * 9000 + " is missing; check the path"
    short = shortened(sentence)
    assert len(short) <= 1000
    assert short.startswith("the file xxx")
    assert short.endswith("check the path")
    assert shortened("short") == "short"


@pytest.mark.parametrize("kind", [ConfigError, DataError, FileError])
def test_every_error_is_short(kind: type[Exception]) -> None:
    error = kind(f"{'x' * 5000}; check the path")
    assert len(str(error)) <= 1000
    assert str(error).endswith("check the path")
    assert str(kind("short")) == "short"


def test_lists_show_some_items_shortened() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert len(listed(["x" * 5000, "y" * 5000])) < 600


def test_markdown_obeys_no_sign_of_a_name() -> None:
    assert markdown("a_b|<i>c</i> #1 & *d*") == r"a\_b\|\<i\>c\</i\> \#1 \& \*d\*"
