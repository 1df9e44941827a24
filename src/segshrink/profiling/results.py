"""What a benchmark measured, and its files: JSON for programs, a table and a figure for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segshrink import formatting
from segshrink.files import refuse_foreign, replacing, write_json, write_text
from segshrink.folder_lock import claimed
from segshrink.machine import describe_machine, package_versions
from segshrink.profiling.latency import Measurement, runtime_title, threads_title
from segshrink.profiling.load import Load
from segshrink.version import __version__

JSON_FILE, MARKDOWN_FILE, FIGURE_FILE = "benchmark.json", "benchmark.md", "benchmark.png"
# Packages whose versions change what is measured.
_PACKAGES = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
TIMED = "raw pixels (N, H, W, bands) to class map (N, H, W), warm, one process for each row and shape"


@dataclass
class Row:
    """A model on a runtime, filled in step by step; what isn't known, or failed, is None.

    Attributes:
        model: Its name in tables; no two sources share one.
        source: What the user named.
        runtime: One of ``latency.RUNTIMES``.
        precision: "auto", "32" or "bf16".
        file: What the runtime opens: the source, or the file that was exported from it.
        file_bytes: Size of the weights' file; of both files where weights stand beside the graph.
        parameters: How many the model has.
        macs: Multiply-accumulates of one image; None for exported files.
        mean_iou: On the data set, 0 to 1.
        mean_iou_interval: Its bootstrap interval over images.
        measurements: What it took here, one for each batch and number of threads.
        errors: Sentences about what failed.
        parts: The models whose mean it is, on the same runtime; empty: it is one model.
    """

    model: str
    source: Path
    runtime: str
    precision: str
    file: Path | None = None
    file_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    mean_iou: float | None = None
    mean_iou_interval: tuple[float, float] | None = None
    measurements: list[Measurement] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    parts: tuple[Row, ...] = ()

    @property
    def models(self) -> tuple[Row, ...]:
        """Itself, or the models whose mean it is."""
        return self.parts or (self,)

    @property
    def runtime_title(self) -> str:
        """The runtime as tables call it."""
        return runtime_title(self.runtime, self.precision)

    @property
    def title(self) -> str:
        """Model and runtime, for progress bars and errors."""
        return f"{self.model} on {self.runtime_title}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return {
            "model": self.model,
            "source": str(self.source),
            "average_of": [part.model for part in self.parts],
            "runtime": self.runtime,
            "runtime_title": self.runtime_title,
            "precision": self.precision,
            "file": self.file.name if self.file else None,
            "file_bytes": self.file_bytes,
            "parameters": self.parameters,
            "macs": self.macs,
            "mean_iou": self.mean_iou,
            "mean_iou_interval": self.mean_iou_interval and list(self.mean_iou_interval),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "errors": self.errors,
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """Models beside each other.

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

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Every (batch, threads) that was measured, in order."""
        return list(dict.fromkeys(_shape(measurement) for row in self.rows for measurement in row.measurements))

    @property
    def messages(self) -> list[str]:
        """What has to be said beside the table: failures, what was left out, and a busy machine."""
        failures = [error for row in self.rows for error in row.errors]
        return list(dict.fromkeys([*failures, *self.notes]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able, with machine and versions."""
        names = ("date", "size", "runs", "rounds", "data", "split", "leaking")
        return {
            "segshrink": __version__,
            **{name: getattr(self, name) for name in names},
            "timed": TIMED,
            "machine": describe_machine(),
            "versions": package_versions(*_PACKAGES),
            "load": self.load.to_dict(),
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
        }


def table(result: BenchmarkResult) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of cells; both may hold line breaks.

    A column that would be empty is left out. Memory is that of the first shape: the smallest batch and fewest threads
    that were asked for.
    """
    shapes = result.shapes
    headings = ["model", "runtime", "mIoU", "parameters", "MACs", "file", "memory"]
    headings += [f"batch {batch}\n{threads_title(threads)}" for batch, threads in shapes]
    rows = [_cells(row, shapes) for row in result.rows]
    kept = [
        column
        for column in range(len(headings))
        if column < 2 or any(row[column] != formatting.NOTHING for row in rows) or column >= 7
    ]
    return [headings[column] for column in kept], [[row[column] for column in kept] for row in rows]


def subtitle(result: BenchmarkResult) -> str:
    """Say what was measured, with what, on what."""
    machine = describe_machine()
    scored = f"; mIoU on {result.data}, {result.split} split" if result.data else ""
    leaking = " (the split leaks: these scores are too good)" if result.data and result.leaking else ""
    return (
        f"latency: median, and 95th percentile, of {result.runs} runs in {result.rounds} interleaved rounds, "
        f"{result.size} × {result.size} pixels, {TIMED}; throughput in 10^6 pixels per second; memory: largest "
        f"resident set of a fresh process after one run{scored}{leaking}; "
        f"{machine['cpu']}, {machine['cores']} cores"
    )


def to_markdown(result: BenchmarkResult) -> str:
    """Return the table with its words as Markdown."""
    headings, rows = table(result)
    lines = ["# Benchmark", "", f"{result.date[:16].replace('T', ' ')} UTC: {subtitle(result)}.", ""]
    lines.append(_line(headings))
    lines.append("|---|---|" + "---:|" * (len(headings) - 2))
    lines += [_line(row) for row in rows]
    if result.messages:
        lines += ["", *(f"- {formatting.markdown(message)}" for message in result.messages)]
    return "\n".join(lines) + "\n"


def check_place(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder where a benchmark would replace what this program didn't write.

    Raises:
        FileError: There is such a file.
    """
    refuse_foreign(*(folder / name for name in (JSON_FILE, MARKDOWN_FILE, FIGURE_FILE)), overwrite=overwrite)


def write_results(result: BenchmarkResult, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``benchmark.json``, ``benchmark.md`` and, where models were scored, ``benchmark.png``.

    Args:
        result: What was measured.
        folder: Made where it is missing; an earlier benchmark in it is replaced.
        overwrite: Replace files of these names that this program did not write.

    Returns:
        The files written.

    Raises:
        FileError: The folder can't be written, holds other files of these names, or another process writes into it.
    """
    from segshrink.profiling.scatter import draw_benchmark

    record, page, picture = (Path(folder) / name for name in (JSON_FILE, MARKDOWN_FILE, FIGURE_FILE))
    with claimed(Path(folder)):
        check_place(Path(folder), overwrite=overwrite)
        content = result.to_dict()
        write_json(record, content, overwrite=overwrite)
        figure = draw_benchmark(content)
        markdown = to_markdown(result)
        if figure is None:
            picture.unlink(missing_ok=True)
        else:
            with replacing(picture, overwrite=overwrite) as temporary:
                temporary.write_bytes(figure)
            markdown += f"\n![mean IoU over latency, area: file size]({FIGURE_FILE})\n"
        write_text(page, markdown, overwrite=overwrite)
    return [record, page] if figure is None else [record, page, picture]


def _shape(measurement: Measurement) -> tuple[int, int]:
    return measurement.job.batch, measurement.job.cores


def _cells(row: Row, shapes: list[tuple[int, int]]) -> list[str]:
    by_shape = {_shape(measurement): measurement for measurement in row.measurements}
    memories = (measurement.peak_memory_mb for measurement in row.measurements)
    return [
        row.model,
        row.runtime_title,
        formatting.score(row.mean_iou),
        formatting.scaled(row.parameters),
        formatting.scaled(row.macs),
        formatting.size(row.file_bytes),
        formatting.memory(next((memory for memory in memories if memory is not None), None)),
        *(_latency(by_shape.get(shape)) for shape in shapes),
    ]


def _latency(measurement: Measurement | None) -> str:
    if measurement is None or measurement.latency_ms is None:
        return formatting.NOTHING
    median, p95 = measurement.latency_ms["median"], measurement.latency_ms["p95"]
    return f"{formatting.milliseconds(median)}\np95 {formatting.milliseconds(p95)}\n{measurement.throughput:.3g} Mpx/s"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(formatting.markdown(cell).replace("\n", "<br>") for cell in cells) + " |"
