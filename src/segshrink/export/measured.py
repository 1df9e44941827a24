"""What is known of a run's model from the run folder's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshrink.records import Section


@dataclass(frozen=True)
class Measured:
    """Numbers of a run; None where nobody measured.

    Attributes:
        data: Name of the data set that judged it.
        split: The part of it.
        leaking: Whether judged pixels lie beside training pixels, so that scores are too good.
        mean_iou: In [0, 1].
        interval: Its 95 % bootstrap interval.
        iou: By class.
        latency_ms: Median for one image of ``size`` × ``size`` in PyTorch, fp32.
        size: As above.
        peak_memory_mb: Of a process that loads the model in PyTorch and runs one such image.
        macs: Multiply-accumulates for one such image.
        machine: Processor and threads that this was measured with.
        load: Share of the cores that other programs took meanwhile; None where unknown.
        busy: Whether that was so much that the latency is too long.
    """

    data: str | None = None
    split: str | None = None
    leaking: bool = False
    mean_iou: float | None = None
    interval: tuple[float, float] | None = None
    iou: Sequence[float | None] = ()
    latency_ms: float | None = None
    size: int | None = None
    peak_memory_mb: float | None = None
    macs: int | None = None
    machine: str | None = None
    load: float | None = None
    busy: bool = False


def read_measured(run: Path) -> Measured:
    """Read ``evaluation.json`` and ``profile.json`` of a run folder, as far as they are there.

    Raises:
        FileError: One of them can't be read.
        DataError: One of them holds something else than it should.
    """
    evaluation = Section.read(run / "evaluation.json")
    profile = Section.read(run / "profile.json")
    return Measured(**{**_accuracy(evaluation), **_costs(profile)})


def _accuracy(evaluation: Section | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    scores, interval = evaluation.section("scores"), evaluation.section("interval")
    ends = [end for end in interval.numbers("mean_iou") if end is not None] if interval else []
    return {
        "data": evaluation.text("data"),
        "split": evaluation.text("split"),
        "leaking": evaluation.flag("leaking"),
        "mean_iou": scores.number("mean_iou") if scores else None,
        "interval": (ends[0], ends[1]) if len(ends) == 2 else None,
        "iou": scores.numbers("iou") if scores else (),
    }


def _costs(profile: Section | None) -> dict[str, Any]:
    if profile is None:
        return {}
    latency, machine, load = (profile.section(key) for key in ("latency_ms", "machine", "load"))
    shape = profile.numbers("input")
    return {
        "latency_ms": latency.number("median") if latency else None,
        "size": int(shape[-1]) if shape and shape[-1] is not None else None,
        "peak_memory_mb": profile.number("peak_memory_mb"),
        "macs": profile.count("macs"),
        "machine": f"{machine.text('cpu')}, {machine.text('threads')} thread(s)" if machine else None,
        "load": load.number("others") if load else None,
        "busy": load is not None and load.flag("busy"),
    }
