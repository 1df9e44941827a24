"""What a quantisation gave: a row for each file and runtime, and which of them to use."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segshrink.machine import cpu_instructions, describe_machine
from segshrink.profiling import Load

Precision = Literal["fp32", "int8"]

# A difference in latency below this share is none.
SAME_LATENCY = 0.03


@dataclass(frozen=True)
class QuantizationRow:
    """One file in one runtime, measured.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        precision: "fp32" or "int8".
        file: The file; an ``.xml`` has its ``.bin`` beside it.
        mean_iou: On the validation split, in [0, 1].
        drop: How much less that is than the float32 model's, in points (hundredths); negative where it is more.
        agreement: Share of the split's pixels on which it decides as the float32 model in ONNX Runtime.
        bytes: Size of the file, or of both.
        latency_ms: Median for one image of 512 x 512 pixels on one thread.
        float_layers: Layers kept in higher precision because int8 harms them, by the names of their outputs.
        distilled: Whether its weights learned to be rounded.
        load: What other programs computed while it and the others were timed.
    """

    runtime: str
    precision: Precision
    file: Path
    mean_iou: float
    drop: float
    agreement: float
    bytes: int
    latency_ms: float
    float_layers: tuple[str, ...] = ()
    distilled: bool = False
    load: Load = field(default_factory=Load)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; the file by its name."""
        return {
            **vars(self),
            "file": self.file.name,
            "float_layers": list(self.float_layers),
            "load": self.load.to_dict(),
        }


@dataclass(frozen=True)
class Refusal:
    """A runtime that can't be used with a file on this machine.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        precision: Of the file.
        reason: One sentence.
    """

    runtime: str
    precision: Precision
    reason: str


@dataclass(frozen=True)
class QuantizationResult:
    """The outcome of ``quantize``.

    Attributes:
        chosen: The file to use: the quickest of those that lose no more than was allowed.
        runtime: What to run it with.
        rows: All that was measured, for each runtime float32 first.
        verdict: What came out, in a few sentences.
        max_drop: Points of mIoU that it was allowed to lose.
        tiles: Calibration tiles.
        refused: What couldn't be run here, and why.
    """

    chosen: Path
    runtime: str
    rows: tuple[QuantizationRow, ...]
    verdict: str
    max_drop: float
    tiles: int
    refused: tuple[Refusal, ...] = ()

    def row(self, runtime: str, precision: Precision) -> QuantizationRow:
        """Return one row; raises ``KeyError`` when there is none."""
        for row in self.rows:
            if (row.runtime, row.precision) == (runtime, precision):
                return row
        raise KeyError((runtime, precision))

    def moved(self, folder: Path) -> QuantizationResult:
        """Return the same with all files in ``folder``."""
        rows = tuple(replace(row, file=folder / row.file.name) for row in self.rows)
        return replace(self, chosen=folder / self.chosen.name, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``quantization.json``."""
        return {
            "chosen": self.chosen.name,
            "runtime": self.runtime,
            "verdict": self.verdict,
            "max_drop": self.max_drop,
            "tiles": self.tiles,
            "rows": [row.to_dict() for row in self.rows],
            "refused": [vars(refusal) for refusal in self.refused],
            "machine": describe_machine(threads=1),
        }


def choose(rows: Sequence[QuantizationRow], *, max_drop: float) -> QuantizationRow:
    """Return the quickest row that loses at most ``max_drop`` points; of equally quick ones the smaller file."""
    good = [row for row in rows if row.precision == "fp32" or row.drop <= max_drop]
    best = min(row.latency_ms for row in good)
    quick = [row for row in good if row.latency_ms <= best * (1 + SAME_LATENCY)]
    return min(quick, key=lambda row: row.bytes)


def judge_rows(rows: Sequence[QuantizationRow], *, max_drop: float, refused: Sequence[Refusal] = ()) -> str:
    """Say for each runtime what int8 gained and lost against float32, and where this machine can't show it."""
    floats = {row.runtime: row for row in rows if row.precision == "fp32"}
    sentences = [_sentence(row, floats[row.runtime], max_drop) for row in rows if row.precision == "int8"]
    sentences += [f"{refusal.precision} in {refusal.runtime} is left out: {refusal.reason}." for refusal in refused]
    chosen = choose(rows, max_drop=max_drop)
    sentences.append(f"Use {chosen.file.name} with {chosen.runtime}. Checked on {describe_machine()['cpu']}.")
    if (load := chosen.load).busy:
        sentences.append(load.sentence[:1].upper() + load.sentence[1:] + ".")
    if (vnni := has_vnni()) is not True:
        known = "has no" if vnni is False else "may have no"
        sentences.append(f"This processor {known} VNNI instructions, so int8 may not be faster here.")
    return " ".join(sentences)


def _sentence(row: QuantizationRow, reference: QuantizationRow, max_drop: float) -> str:
    ratio = row.latency_ms / reference.latency_ms
    speed = (
        "as fast as fp32"
        if abs(ratio - 1) <= SAME_LATENCY
        else f"{1 / ratio:.1f} times as fast as fp32"
        if ratio < 1
        else f"slower than fp32 ({row.latency_ms:.1f} ms instead of {reference.latency_ms:.1f})"
    )
    accuracy = (
        f"{-row.drop:.2f} points better"
        if row.drop < 0
        else f"{row.drop:.2f} points worse"
        + ("" if row.drop <= max_drop else f", more than the {max_drop:g} that were allowed")
    )
    kept = f", with {len(row.float_layers)} layers in higher precision" if row.float_layers else ""
    size = f"{row.bytes / reference.bytes:.0%} of its size"
    return f"In {row.runtime}, int8 is {speed}, {size} and {accuracy} in mIoU{kept}."


def has_vnni() -> bool | None:
    """Tell whether the processor multiplies 8-bit integers in one instruction (VNNI); None where that isn't known."""
    known = cpu_instructions()
    if not known or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    return "avx512_vnni" in known or "avx_vnni" in known
