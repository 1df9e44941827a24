"""A benchmark's rows as text cells, and as Markdown."""

from __future__ import annotations

from segshrink import formatting
from segshrink.machine import describe_machine
from segshrink.profiling.jobs import Measurement, threads_title
from segshrink.profiling.results import TIMED, BenchmarkResult, Row, shapes


def table(result: BenchmarkResult) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of cells; both may hold line breaks.

    A column that would be empty is left out. Memory is that of the first shape: the smallest batch and fewest threads
    that were asked for.
    """
    measured = shapes(result.rows)
    headings = ["model", "runtime", "mIoU", "parameters", "MACs", "file", "memory"]
    headings += [f"batch {batch}\n{threads_title(threads)}" for batch, threads in measured]
    rows = [_cells(row, measured) for row in result.rows]
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


def messages(result: BenchmarkResult) -> list[str]:
    """Return what has to be said beside the table: failures, what was left out, and a busy machine."""
    failures = [error for row in result.rows for error in row.errors]
    return list(dict.fromkeys([*failures, *result.notes]))


def to_markdown(result: BenchmarkResult) -> str:
    """Return the table with its words as Markdown."""
    headings, rows = table(result)
    lines = ["# Benchmark", "", f"{result.date[:16].replace('T', ' ')} UTC: {subtitle(result)}.", ""]
    lines.append(_line(headings))
    lines.append("|---|---|" + "---:|" * (len(headings) - 2))
    lines += [_line(row) for row in rows]
    said = messages(result)
    if said:
        lines += ["", *(f"- {_escaped(message)}" for message in said)]
    return "\n".join(lines) + "\n"


def _cells(row: Row, measured: list[tuple[int, int]]) -> list[str]:
    costs, found = row.costs, {(one.job.batch, one.job.cores): one for one in row.measurements}
    first = next((one for one in row.measurements if one.peak_memory_mb is not None), None)
    return [
        row.entry.model,
        row.runtime,
        formatting.score(row.score.mean_iou if row.score else None),
        formatting.scaled(costs.parameters if costs else None),
        formatting.scaled(costs.macs if costs else None),
        formatting.size(costs.file_bytes if costs else None),
        formatting.memory(first.peak_memory_mb if first else None),
        *(_latency(found.get(shape)) for shape in measured),
    ]


def _latency(measured: Measurement | None) -> str:
    if measured is None or measured.latency_ms is None or measured.throughput is None:
        return formatting.NOTHING
    median, p95 = measured.latency_ms["median"], measured.latency_ms["p95"]
    return f"{formatting.milliseconds(median)}\np95 {formatting.milliseconds(p95)}\n{measured.throughput:.3g} Mpx/s"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_escaped(cell).replace("\n", "<br>") for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Keep a name from being read as Markdown or HTML."""
    for letter in "\\`*_[]<>|":
        text = text.replace(letter, f"\\{letter}")
    return text
