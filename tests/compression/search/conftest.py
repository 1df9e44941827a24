from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from segshrink.compression.search.candidates import Candidate, CandidateFile, CandidateResult, Reference
from segshrink.compression.search.search import silent
from segshrink.config import Recipe
from segshrink.errors import ModelError, TrainingError

# What candidates cost in fp32: latency in ms, size in bytes, parameters, MACs; and the mIoU they are distilled to.
COSTS = {
    "mobile": (30.0, 2_000_000, 475_000, 2_000_000_000),
    "mobile-blocks7": (18.0, 600_000, 150_000, 1_200_000_000),
    "separable-unet-width0.125": (12.0, 200_000, 40_000, 700_000_000),
    "unet-width4-depth2": (10.0, 400_000, 50_000, 500_000_000),
    "unet-width8": (60.0, 2_000_000, 486_000, 4_000_000_000),
}
SCORES = {
    "mobile": 0.64,
    "mobile-blocks7": 0.62,
    "separable-unet-width0.125": 0.60,
    "unet-width4-depth2": 0.63,
    "unet-width8": 0.61,
}
OTHER = (200.0, 9_000_000, 3_000_000, 20_000_000_000)


def files_of(name: str, share: float = 1.0) -> tuple[CandidateFile, ...]:
    """Its fp32 and int8 file: int8 takes half the time and a quarter of the bytes."""
    latency, size, _, _ = COSTS.get(name, OTHER)
    return tuple(
        CandidateFile("onnxruntime", precision, int(share * size / divisor), share * latency / halves, 40.0, 150.0)
        for precision, divisor, halves in (("fp32", 1, 1), ("int8", 4, 2))
    )


@dataclass
class FakeStages:
    """``SearchStages`` that knows what everything costs, and counts what it was asked to do."""

    recipe: Any
    work: Path
    settings: Any = None
    show: Any = silent
    teacher_iou: float = 0.65
    int8_drop: float = 0.004
    slower_at_the_end: float = 1.0
    broken: tuple[str, ...] = ()
    diverging: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)
    drops: list[float] = field(default_factory=list)
    made: ClassVar[list[FakeStages]] = []

    def __post_init__(self) -> None:
        self.made.append(self)
        self.teacher_folder = self.work / "teacher"

    def measure(self, candidate: Candidate) -> CandidateResult:
        self.calls.append(f"measure {candidate.name}")
        if candidate.name in self.broken:
            raise ModelError(f"{candidate.name} can't be exported")
        name = candidate.pruned_from or candidate.name
        _, _, parameters, macs = COSTS.get(name, OTHER)
        share = 1.0 if candidate.macs is None else candidate.macs / macs
        return CandidateResult(candidate, int(share * parameters), int(share * macs), files_of(name, share))

    def prepare_teacher(self) -> Reference:
        self.calls.append("prepare_teacher")
        file = CandidateFile("torch", "fp32", 26_000_000, path="teacher/model", mean_iou=self.teacher_iou)
        return Reference("teacher", file, 6_600_000)

    def distill(self, result: CandidateResult, base: CandidateResult | None) -> CandidateResult:
        self.calls.append(f"distill {result.name}")
        if result.name in self.diverging:
            raise TrainingError("the loss became NaN")
        assert base is None or base.run is not None
        score = SCORES.get(result.name, 0.5) if base is None else (base.mean_iou or 0) - 0.005
        return replace(result, run=f"runs/{result.name}", mean_iou=score)

    def build(self, result: CandidateResult, *, max_drop: float) -> CandidateResult:
        self.calls.append(f"build {result.name}")
        self.drops.append(max_drop)
        files = []
        for file in result.untrained:
            path = self.work / result.name / f"{file.precision}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{result.name} {file.precision}".encode())
            lost = self.int8_drop if file.precision == "int8" else 0.0
            score = (result.mean_iou or 0) - lost
            files.append(replace(file, path=str(path), mean_iou=score, accuracy=0.8, latency_ms=0.0))
        return replace(result, files=tuple(files))

    def measure_final(
        self, results: Sequence[CandidateResult], reference: Reference
    ) -> tuple[list[CandidateResult], Reference]:
        self.calls.append("measure_final")
        final = []
        for result in results:
            pairs = zip(result.files, result.untrained, strict=True)
            files = [replace(file, latency_ms=self.slower_at_the_end * quick.latency_ms) for file, quick in pairs]
            final.append(replace(result, files=tuple(files)))
        teacher = replace(reference.file, latency_ms=400.0, latency_p95_ms=420.0, memory_mb=700.0)
        return final, replace(reference, file=teacher)

    def profile(self, result: CandidateResult) -> None:
        self.calls.append(f"profile {result.name}")


@pytest.fixture
def stages(tmp_path: Path) -> FakeStages:
    return FakeStages(None, tmp_path / "work")


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
