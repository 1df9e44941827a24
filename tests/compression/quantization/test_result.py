from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.compression.quantization import result
from segshrink.compression.quantization.result import QuantizationRow, Refusal, choose, verdict
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
    text = verdict(rows(drop=0.4, latency=5), max_drop=1)
    for part in ("onnxruntime", "2.0 times as fast", "30%", "0.40 points worse", "Use int8.onnx"):
        assert part in text
    assert describe_machine()["cpu"] in text
    assert "VNNI" not in text


def test_slower_and_worse_are_said() -> None:
    text = verdict(rows(drop=2.5, latency=15, kept=("a", "b")), max_drop=1)
    for part in ("slower than fp32", "15.0 ms", "2.50 points worse, more than the 1", "2 layers", "Use fp32.onnx"):
        assert part in text


@pytest.mark.parametrize(("vnni", "words"), [(False, "has no VNNI"), (None, "may have no VNNI")])
def test_a_processor_without_vnni_is_named(monkeypatch: pytest.MonkeyPatch, vnni: bool | None, words: str) -> None:
    monkeypatch.setattr(result, "has_vnni", lambda: vnni)
    text = verdict(rows(drop=0.4, latency=5), max_drop=1)
    assert f"{words} instructions" in text


def test_what_could_not_be_run_is_said() -> None:
    refused = [Refusal("openvino", "int8", "int8.xml was ended by SIGSEGV")]
    text = verdict(rows(drop=0.4, latency=5), max_drop=1, refused=refused)
    assert "openvino is left out: int8.xml was ended by SIGSEGV" in text
