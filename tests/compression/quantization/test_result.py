from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.compression.quantization import result
from segshrink.compression.quantization.result import QuantizationRow, Refusal, choose, judge_rows
from segshrink.machine import describe_machine


def rows(*, drop: float, latency: float, kept: tuple[str, ...] = ()) -> list[QuantizationRow]:
    return [
        QuantizationRow("onnxruntime", "fp32", Path("fp32.onnx"), 0.7, 0.0, 1.0, 2000, 10.0),
        QuantizationRow("onnxruntime", "int8", Path("int8.onnx"), 0.7 - drop / 100, drop, 0.98, 600, latency, kept),
    ]


@pytest.fixture(autouse=True)
def _vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "has_vnni", lambda: True)


def test_the_quicker_of_those_good_enough_is_chosen() -> None:
    assert choose(rows(drop=0.4, latency=5), max_drop=1).precision == "int8"
    assert choose(rows(drop=1.4, latency=5), max_drop=1).precision == "fp32"
    assert choose(rows(drop=-0.4, latency=15), max_drop=1).precision == "fp32"
    assert choose(rows(drop=0.4, latency=10.1), max_drop=1).precision == "int8"  # as quick, and smaller


def test_the_verdict_says_what_was_gained_and_lost() -> None:
    said = judge_rows(rows(drop=0.4, latency=5), max_drop=1)
    assert said == (
        "In onnxruntime, int8 is 2.0 times as fast as fp32, 30% of its size and 0.40 points worse in mIoU. "
        f"Use int8.onnx with onnxruntime. Checked on {describe_machine()['cpu']}."
    )


def test_slower_and_worse_are_said() -> None:
    said = judge_rows(rows(drop=2.5, latency=15, kept=("a", "b")), max_drop=1)
    assert "slower than fp32 (15.0 ms instead of 10.0)" in said
    assert "2.50 points worse, more than the 1 that were allowed in mIoU, with 2 layers in higher precision" in said
    assert "Use fp32.onnx with onnxruntime." in said


@pytest.mark.parametrize(("vnni", "words"), [(False, "has no VNNI"), (None, "may have no VNNI")])
def test_a_processor_without_vnni_is_named(monkeypatch: pytest.MonkeyPatch, vnni: bool | None, words: str) -> None:
    monkeypatch.setattr(result, "has_vnni", lambda: vnni)
    said = judge_rows(rows(drop=0.4, latency=5), max_drop=1)
    assert f"This processor {words} instructions, so int8 may not be faster here." in said


def test_what_could_not_be_run_is_said() -> None:
    refused = [Refusal("openvino", "int8", "int8.xml was ended by SIGSEGV")]
    said = judge_rows(rows(drop=0.4, latency=5), max_drop=1, refused=refused)
    assert "int8 in openvino is left out: int8.xml was ended by SIGSEGV." in said
