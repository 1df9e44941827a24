"""Kept measurements: what is damaged is refused, so that it is measured again."""

from __future__ import annotations

import pytest

from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.records import Entry, MeasuredFile
from segshrink.errors import FileError

ENTRY = Entry(Candidate("a", "unet", "unet"), 5, 6, (MeasuredFile("onnxruntime", "fp32", 10, 1.0, 2.0, 0.0),))


@pytest.mark.parametrize("value", [None, "x", {}, float("nan"), float("inf"), -1, 0, [[]]])
@pytest.mark.parametrize("part", ["parameters", "macs", "untrained", "files", "candidate", "latency_ms"])
def test_damaged_measurements_are_refused(part, value):
    whole = ENTRY.to_dict()
    assert Entry.from_dict(whole) == ENTRY
    changed = {**whole, part: value}
    if part == "latency_ms":
        changed = {**whole, "untrained": [{**whole["untrained"][0], part: value}]}
    with pytest.raises(FileError, match="damaged"):
        Entry.from_dict(changed)
