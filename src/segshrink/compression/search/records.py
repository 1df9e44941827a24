"""What a search knows about its candidates: measured files, scores, and what became of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from segshrink.compression.search.candidates import Candidate
from segshrink.errors import FileError
from segshrink.profiling.load import is_busy

Status = Literal["measured", "failed", "unfit", "not distilled", "distilled", "missed", "within", "chosen"]


@dataclass(frozen=True)
class MeasuredFile:
    """One exported file of a candidate, and what it costs here.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        precision: "fp32" or "int8".
        size_bytes: Of the file, with its weights where they stand in one of their own.
        latency_ms: Median of one image.
        latency_p95_ms: 95th percentile.
        memory_mb: Largest resident set of a fresh process that loads it and runs one image, in 10^6 bytes.
        path: The file; None when it was of random weights, and is gone.
        mean_iou: Of this very file on the validation split, in [0, 1]; None before it was scored.
        accuracy: Its share of right pixels.
        load: Share of the cores that other programs took while it was timed, 0 to 1; None where unknown.
    """

    runtime: str
    precision: str
    size_bytes: int
    latency_ms: float
    latency_p95_ms: float
    memory_mb: float
    path: str | None = None
    mean_iou: float | None = None
    accuracy: float | None = None
    load: float | None = None

    @property
    def label(self) -> str:
        """Such as "int8 on openvino"."""
        return f"{self.precision} on {self.runtime}"


@dataclass(frozen=True)
class Entry:
    """A candidate and what is known about it.

    Attributes:
        candidate: The network.
        parameters: How many it has.
        macs: Multiply-accumulates of one image of the measured size.
        untrained: Its files with random weights.
        run: Its run folder, once distilled.
        mean_iou: Of the distilled model in PyTorch, in [0, 1].
        files: Its exported files, scored and measured.
        status: What became of it.
        reason: The same for people: "too slow: latency 31 ms > 20 ms".
        refused: Why files of it that couldn't be run on this machine are missing.
    """

    candidate: Candidate
    parameters: int = 0
    macs: int = 0
    untrained: tuple[MeasuredFile, ...] = ()
    run: str | None = None
    mean_iou: float | None = None
    files: tuple[MeasuredFile, ...] = ()
    status: Status = "measured"
    reason: str = ""
    refused: tuple[str, ...] = ()

    @property
    def timed_well(self) -> bool:
        """Whether its untrained files were timed on a machine that is known to have been quiet."""
        return all(file.load is not None and not is_busy(file.load) for file in self.untrained)

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name

    def marked(self, status: Status, reason: str) -> Entry:
        """Return it with another fate."""
        return replace(self, status=status, reason=reason)

    def values(self, file: MeasuredFile, *, teacher_iou: float | None = None) -> dict[str, float | None]:
        """Return what budgets limit, in base units, of one of its files."""
        drop = None if teacher_iou is None or file.mean_iou is None else 100 * (teacher_iou - file.mean_iou)
        return {
            "latency": file.latency_ms,
            "size": float(file.size_bytes),
            "memory": 1e6 * file.memory_mb,
            "parameters": float(self.parameters),
            "macs": float(self.macs),
            "drop": drop,
            "miou": file.mean_iou,
            "accuracy": file.accuracy,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping that ``from_dict`` reads back."""
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Entry:
        """Read back what ``to_dict`` gave.

        Raises:
            FileError: A part is missing or of the wrong kind.
        """
        try:
            entry = TypeAdapter(cls).validate_python({key: value for key, value in mapping.items() if key != "name"})
            costs = [
                cost
                for file in (*entry.untrained, *entry.files)
                for cost in (file.size_bytes, file.latency_ms, file.latency_p95_ms, 1 + file.memory_mb)
            ]
            if not entry.untrained or not all(0 < cost < math.inf for cost in (*costs, entry.parameters, entry.macs)):
                raise ValueError("no file, or a cost that is no number above 0")
        except (AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise FileError(
                f"the measurements of a candidate are damaged ({type(error).__name__}); delete them"
            ) from error
        return entry


@dataclass(frozen=True)
class Reference:
    """What candidates are compared with: the teacher.

    Attributes:
        name: How it is called.
        mean_iou: On the validation split, in [0, 1].
        parameters: How many it has; None when unknown.
        size_bytes: Of its weights' file; None for a black box.
        latency_ms: Median of one image in PyTorch, fp32; None where it couldn't be measured beside the candidates.
        latency_p95_ms: 95th percentile.
        memory_mb: As for files.
        load: As for files.
        source: Model folder to measure; None for a black box.
    """

    name: str
    mean_iou: float
    parameters: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    memory_mb: float | None = None
    load: float | None = None
    source: str | None = None


@dataclass
class Ledger:
    """All entries of a search by name, in order."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def put(self, entry: Entry) -> Entry:
        """Add an entry, or replace that of the same name."""
        self.entries[entry.name] = entry
        return entry

    def mark(self, name: str, status: Status, reason: str) -> Entry:
        """Say what became of a candidate."""
        return self.put(self.entries[name].marked(status, reason))

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.entries.values()))
