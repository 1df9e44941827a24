"""Records on disk: what a stranger's file may lie about is one sentence that names file and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segshrink.errors import DataError, FileError
from segshrink.records import Count, Flag, Many, Number, Record, Score, Text


class Inner(Record):
    count: Count


class Example(Record):
    number: Number | None = None
    scores: Many[Score] = ()
    inner: Many[Inner] = ()
    text: Text = "text"
    flag: Flag = False


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = Example(number=3, scores=[0.1, float("nan"), np.float64(0.3)], inner=[Inner(count=2)], flag=True)
    record.write(tmp_path / "example.json")
    assert Example.read(tmp_path / "example.json") == record
    assert json.loads((tmp_path / "example.json").read_text())["scores"] == [0.1, None, 0.3]


def test_unknown_keys_of_other_versions_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text('{"number": 1.5, "later": {"a": [1]}}')
    assert Example.read(tmp_path / "example.json") == Example(number=1.5)


def test_a_text_can_be_shown_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text('{"text": "a\\u001b[31m\\nb"}')
    assert Example.read(tmp_path / "example.json").text == "a\\x1b[31m b"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([], ("the file", "an object", "list")),
        (None, ("the file", "an object", "null")),
        ({"number": "1"}, ("'number'", "a number", "'1'")),
        ({"number": True}, ("'number'", "a number", "True")),
        ({"scores": 3}, ("'scores'", "a list", "3")),
        ({"scores": [0.5, "high"]}, ("'scores[1]'", "a number", "'high'")),
        ({"scores": ["high"] * 10**5}, ("'scores[0]'", "a number", "'high'")),
        ({"inner": [{"count": 1}, {"count": 1.5}]}, ("'inner[1].count'", "a whole number", "1.5")),
        ({"inner": [{}]}, ("'inner[0].count'", "missing")),
        ({"inner": [{"count": [0] * 10**5}]}, ("'inner[0].count'", "a whole number", "list")),
        ({"text": 3}, ("'text'", "a text", "3")),
        ({"flag": 1}, ("'flag'", "true or false", "1")),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, content: Any, parts: tuple[str, ...]) -> None:
    file = tmp_path / "example.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        Example.read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert all(part in message for part in parts), message
    assert len(message) < 300
    assert "\n" not in message


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 400])
@pytest.mark.parametrize("field", ['{"number": %s}', '{"scores": [0.5, %s]}', '{"inner": [{"count": %s}]}'])
def test_what_is_no_number_is_refused(tmp_path: Path, number: str, field: str) -> None:
    (tmp_path / "example.json").write_text(field % number)
    with pytest.raises(FileError, match=r"example\.json is not valid JSON") as caught:
        Example.read(tmp_path / "example.json")
    assert len(str(caught.value)) < 300


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "example.json").open("wb") as stream:
        stream.truncate(10**8 + 1)
    with pytest.raises(FileError, match="100,000,000"):
        Example.read(tmp_path / "example.json")


def test_a_missing_file_is_none_only_where_that_is_asked(tmp_path: Path) -> None:
    assert Example.read_if_present(tmp_path / "example.json") is None
    with pytest.raises(FileError, match=r"example\.json"):
        Example.read(tmp_path / "example.json")
