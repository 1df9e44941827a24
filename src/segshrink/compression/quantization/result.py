"""What a quantization gave: a row for each file and runtime, and which of them to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segshrink.machine import describe_machine, has_vnni
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
        file: The file; an ``.xml`` has its weights beside it.
        mean_iou: On the validation split, in [0, 1].
        drop: How much less that is than the float32 model's, in points (hundredths); negative where it is more.
        agreement: Share of the split's pixels to which it gives the class that the float32 model gives them in the
            first runtime.
        bytes: Size of the file, with its weights.
        latency_ms: Median for one image of 512 x 512 pixels on one thread; 0 before it is timed.
        float_layers: Layers kept in float because int8 harms them, by the names of their outputs.
        distilled: Whether its weights were trained for 8 bits.
        load: What other programs computed while it and the others were timed.
    """

    runtime: str
    precision: Precision
    file: Path
    mean_iou: float
    drop: float
    agreement: float
    bytes: int
    latency_ms: float = 0.0
    float_layers: tuple[str, ...] = ()
    distilled: bool = False
    load: Load = field(default_factory=Load)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; the file by its name."""
        return vars(self) | {
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
        chosen: The file to use: the fastest of those that lose no more than was allowed.
        runtime: What to run it with.
        rows: All that was measured, for each runtime float32 first.
        verdict: The outcome in a few sentences.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``quantization.json``."""
        return vars(self) | {
            "chosen": self.chosen.name,
            "rows": [row.to_dict() for row in self.rows],
            "refused": [vars(refusal) for refusal in self.refused],
            "machine": describe_machine(threads=1),
        }


def choose(rows: Sequence[QuantizationRow], *, max_drop: float) -> QuantizationRow:
    """Return the fastest row that loses at most ``max_drop`` points; of equally fast ones the smallest file."""
    good = [row for row in rows if row.precision == "fp32" or row.drop <= max_drop]
    fastest = min(row.latency_ms for row in good)
    return min((row for row in good if row.latency_ms <= fastest * (1 + SAME_LATENCY)), key=lambda row: row.bytes)


def verdict(rows: Sequence[QuantizationRow], *, max_drop: float, refused: Sequence[Refusal] = ()) -> str:
    """Say for each runtime what int8 gained and lost against float32, and where this machine can't show it."""
    floats = {row.runtime: row for row in rows if row.precision == "fp32"}
    sentences = [_sentence(row, floats[row.runtime], max_drop) for row in rows if row.precision == "int8"]
    sentences += [f"{refusal.precision} in {refusal.runtime} is left out: {refusal.reason}." for refusal in refused]
    chosen = choose(rows, max_drop=max_drop)
    sentences.append(f"Use {chosen.file.name} with {chosen.runtime}. Checked on {describe_machine()['cpu']}.")
    if (load := chosen.load).busy:
        sentences.append(load.sentence[:1].upper() + load.sentence[1:] + ".")
    if (vnni := has_vnni()) is not True:
        has = "has no" if vnni is False else "may have no"
        sentences.append(f"This processor {has} VNNI instructions, so int8 may not be faster here.")
    return " ".join(sentences)


def _sentence(row: QuantizationRow, reference: QuantizationRow, max_drop: float) -> str:
    ratio = row.latency_ms / reference.latency_ms
    if abs(ratio - 1) <= SAME_LATENCY:
        speed = "as fast as fp32"
    elif ratio < 1:
        speed = f"{1 / ratio:.1f} times as fast as fp32"
    else:
        speed = f"slower than fp32 ({row.latency_ms:.1f} ms instead of {reference.latency_ms:.1f})"
    accuracy = f"{abs(row.drop):.2f} points {'better' if row.drop < 0 else 'worse'}"
    if row.drop > max_drop:
        accuracy += f", more than the {max_drop:g} that were allowed"
    layers = f", with {len(row.float_layers)} layers in float" if row.float_layers else ""
    size = f"{row.bytes / reference.bytes:.0%} of its size"
    return f"In {row.runtime}, int8 is {speed}, {size} and {accuracy} in mIoU{layers}."
