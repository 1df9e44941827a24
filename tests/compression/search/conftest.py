from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.records import Entry, MeasuredFile, Reference
from segshrink.config import Recipe
from segshrink.errors import ModelError, TrainingError

# What candidates cost in fp32: latency in ms, size in bytes, parameters, MACs; and the mIoU they are distilled to.
COSTS = {
    "mobile": (30.0, 2_000_000, 475_000, 2_000_000_000),
    "mobile-blocks7": (18.0, 600_000, 150_000, 1_200_000_000),
    "separable-unet-width0.125": (12.0, 200_000, 40_000, 700_000_000),
    "unet-width8": (60.0, 2_000_000, 486_000, 4_000_000_000),
}
SCORES = {"mobile": 0.64, "mobile-blocks7": 0.62, "separable-unet-width0.125": 0.60, "unet-width8": 0.61}
OTHER = (200.0, 9_000_000, 3_000_000, 20_000_000_000)


def files_of(name: str, share: float = 1.0) -> tuple[MeasuredFile, ...]:
    """Its fp32 and int8 file: int8 is half as slow, a quarter the size."""
    latency, size, _, _ = COSTS.get(name, OTHER)
    return tuple(
        MeasuredFile("onnxruntime", precision, int(share * size / divisor), share * latency / halves, 40.0, 150.0)
        for precision, divisor, halves in (("fp32", 1, 1), ("int8", 4, 2))
    )


@dataclass
class FakeTools:
    """Knows what everything costs, and counts what it was asked to do."""

    folder: Path
    teacher_iou: float = 0.65
    int8_drop: float = 0.004
    slower_at_the_end: float = 1.0
    broken: tuple[str, ...] = ()
    diverging: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    drops: list[float] = field(default_factory=list)

    def measure(self, candidate: Candidate, base: Candidate | None) -> Entry:
        self.calls.append(f"measure {candidate.name}")
        if candidate.name in self.broken:
            raise ModelError(f"{candidate.name} can't be exported")
        name = candidate.name if base is None else base.name
        _, _, parameters, macs = COSTS.get(name, OTHER)
        share = 1.0 if candidate.macs is None else candidate.macs / macs
        return Entry(candidate, int(share * parameters), int(share * macs), files_of(name, share))

    def teach(self) -> Reference:
        self.calls.append("teach")
        return Reference("teacher", self.teacher_iou, 6_600_000, 26_000_000, source="teacher/model")

    def distil(self, entry: Entry, base: Entry | None) -> Entry:
        self.calls.append(f"distil {entry.name}")
        if entry.name in self.diverging:
            raise TrainingError("the loss became NaN")
        assert base is None or base.run is not None
        score = SCORES.get(entry.name, 0.5) if base is None else (base.mean_iou or 0) - 0.005
        return replace(entry, run=f"runs/{entry.name}", mean_iou=score)

    def build(self, entry: Entry, *, max_drop: float) -> Entry:
        self.calls.append(f"build {entry.name}")
        self.drops.append(max_drop)
        built = []
        for file in entry.untrained:
            path = self.folder / entry.name / f"{file.precision}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{entry.name} {file.precision}".encode())
            lost = self.int8_drop if file.precision == "int8" else 0.0
            built.append(
                replace(file, path=str(path), mean_iou=(entry.mean_iou or 0) - lost, accuracy=0.8, latency_ms=0.0)
            )
        return replace(entry, files=tuple(built))

    def weigh(self, entries: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        self.calls.append("weigh")
        weighed = []
        for entry in entries:
            pairs = zip(entry.files, entry.untrained, strict=True)
            files = [replace(a, latency_ms=self.slower_at_the_end * b.latency_ms) for a, b in pairs]
            weighed.append(replace(entry, files=tuple(files)))
        return weighed, replace(reference, latency_ms=400.0, latency_p95_ms=420.0, memory_mb=700.0)


@pytest.fixture
def tools(tmp_path: Path) -> FakeTools:
    return FakeTools(tmp_path / "work")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {
                "name": "test",
                "root": str(tmp_path),
                "images": "*.png",
                "masks": "*.mask.png",
                "classes": [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#FFFFFF"}],
                "split": {"random": 0.5},
            },
            "teacher": {"model": {"id": "unet"}},
            "student": {"model": {"id": "mobile"}},
        }
    )
