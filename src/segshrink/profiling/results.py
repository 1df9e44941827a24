"""What a benchmark found, and its files: JSON for programs, Markdown and a figure for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshrink.files import refuse_foreign, replacing, write_json, write_text
from segshrink.machine import describe_machine, package_versions
from segshrink.profiling.parameters_and_macs import Costs
from segshrink.profiling.jobs import Measurement, runtime_title
from segshrink.profiling.load import Load
from segshrink.profiling.plan import Entry
from segshrink.version import __version__

if TYPE_CHECKING:
    from segshrink.run_records import EvaluationRecord

JSON_FILE, MARKDOWN_FILE, FIGURE_FILE = "benchmark.json", "benchmark.md", "benchmark.png"
# Packages whose versions change what is measured.
_PACKAGES = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
TIMED = "raw pixels (N, H, W, bands) to class map (N, H, W), warm, one process for each row and shape"


@dataclass(frozen=True)
class Score:
    """Mean IoU, 0 to 1, and its bootstrap interval over images; None where it is not a number."""

    mean_iou: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, evaluation: EvaluationRecord) -> Score:
        """Return the score of an evaluation."""
        interval = evaluation.interval
        return cls(evaluation.scores.mean_iou, None if interval is None else interval.mean_iou)

    def to_dict(self) -> dict[str, Any]:
        """Return both, JSON-able."""
        return {"mean_iou": self.mean_iou, "mean_iou_interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class Row:
    """A model on a runtime.

    Attributes:
        entry: Which.
        costs: What is the same on any machine; None when it couldn't be loaded or exported.
        score: How good it is; None without data, or when it failed.
        measurements: What it took here, one for each batch and number of threads.
        errors: Sentences about what failed.
    """

    entry: Entry
    costs: Costs | None
    score: Score | None
    measurements: tuple[Measurement, ...]
    errors: tuple[str, ...]

    @property
    def runtime(self) -> str:
        """The runtime as tables call it."""
        return runtime_title(self.entry.runtime, self.entry.precision)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        costs, score = self.costs, self.score or Score(None, None)
        return {
            "model": self.entry.model,
            "source": str(self.entry.source),
            "runtime": self.entry.runtime,
            "runtime_title": self.runtime,
            "precision": self.entry.precision,
            "file": costs.file.name if costs else None,
            "file_bytes": costs.file_bytes if costs else None,
            "parameters": costs.parameters if costs else None,
            "macs": costs.macs if costs else None,
            **score.to_dict(),
            "measurements": [one.to_dict() for one in self.measurements],
            "errors": list(self.errors),
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """Everything that a benchmark found.

    Attributes:
        date: When it began, ISO 8601, UTC.
        size: Side in pixels of the square images.
        runs: Timed runs of each model and shape, over all rounds.
        rounds: Turns that each took.
        load: What other programs computed while times were taken.
        data: Name of the data set; None without.
        split: Part of it.
        leaking: Whether parts of one scene stand on both sides of the split.
        notes: Sentences about what was left out or is to be doubted.
        rows: One for each model and runtime.
    """

    date: str
    size: int
    runs: int
    rounds: int
    load: Load
    data: str | None
    split: str | None
    leaking: bool
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able, with machine and versions."""
        share = self.load.share
        return {
            "segshrink": __version__,
            "date": self.date,
            "timed": TIMED,
            "size": self.size,
            "runs": self.runs,
            "rounds": self.rounds,
            "machine": describe_machine(),
            "versions": package_versions(*_PACKAGES),
            "load": {
                "others": None if share is None else round(share, 4),
                "seconds": round(self.load.seconds, 1),
                "busy": self.load.busy,
            },
            "data": self.data,
            "split": self.split,
            "leaking": self.leaking,
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
        }


def check_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder where a benchmark would replace what this program didn't write.

    Raises:
        FileError: There is such a file.
    """
    refuse_foreign(*(folder / name for name in (JSON_FILE, MARKDOWN_FILE, FIGURE_FILE)), overwrite=overwrite)


def write_results(result: BenchmarkResult, folder: str | Path, *, markdown: str, overwrite: bool = False) -> list[Path]:
    """Write ``benchmark.json``, ``benchmark.md`` and, where models were scored, ``benchmark.png``.

    Args:
        result: What was found.
        folder: Made where it is missing; an earlier benchmark in it is replaced.
        markdown: The table as Markdown.
        overwrite: Replace files of these names that this program did not write.

    Returns:
        The files written.

    Raises:
        FileError: The folder can't be written, or holds other files of these names.
    """
    from segshrink.profiling.scatter import draw_benchmark

    folder = Path(folder)
    check_place(folder, overwrite=overwrite)
    written = [folder / JSON_FILE, folder / MARKDOWN_FILE]
    write_json(written[0], result.to_dict(), overwrite=overwrite)
    figure = draw_benchmark(written[0])
    picture = folder / FIGURE_FILE
    if figure is None:
        picture.unlink(missing_ok=True)
    else:
        with replacing(picture, overwrite=overwrite) as temporary:
            temporary.write_bytes(figure)
        written.append(picture)
        markdown += f"\n![mean IoU over latency, area: file size]({FIGURE_FILE})\n"
    write_text(written[1], markdown, overwrite=overwrite)
    return written


def shapes(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return every (batch, threads) that was measured, in order."""
    return list(dict.fromkeys((one.job.batch, one.job.cores) for row in rows for one in row.measurements))
