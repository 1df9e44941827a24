"""The files of a search: ``candidates.json``, ``pareto.json`` and ``.png``, ``compress.md``, and the chosen model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, select_autoescape

from segshrink.compression.budget import Budget, show
from segshrink.compression.search.candidates import CandidateFile, CandidateResult, Reference
from segshrink.compression.search.selection import front_costs
from segshrink.config import DatasetDescription
from segshrink.errors import FileError
from segshrink.files import content_key, refuse_foreign, replacing, write_json, write_text
from segshrink.formatting import NOTHING, percent
from segshrink.machine import default_threads, describe_machine
from segshrink.model_file import ModelFile
from segshrink.profiling.latency import runtime_title
from segshrink.profiling.load import is_busy
from segshrink.profiling.scatter import draw_benchmark, pareto_front
from segshrink.records import Record
from segshrink.version import __version__

if TYPE_CHECKING:
    from segshrink.compression.search.search import Settings

CANDIDATES, PARETO, PLOT = "candidates.json", "pareto.json", "pareto.png"
CHOSEN, PAGE = "chosen.json", "compress.md"
MODEL = "model"
# Headings of what ``file_cells`` returns.
FILE_COLUMNS = ("file", "mIoU", "drop in points", "latency", "p95", "load", "size", "memory")


class _Chosen(Record):
    model_sha256: str | None = None


def check_place(out: Path) -> None:
    """Refuse a folder where a search would replace what this program didn't write, or a model of another command.

    Raises:
        FileError: There is such a file.
    """
    refuse_foreign(*(out / name for name in (CANDIDATES, PARETO, PLOT, CHOSEN, PAGE)))
    record = _Chosen.read_if_present(out / CHOSEN)
    chosen = record and record.model_sha256
    refuse_foreign(*(path for path in _model_files(out) if not (path.is_file() and content_key(path) == chosen)))
    model = next((path for path in _model_files(out) if path.exists()), None)
    if model is not None and not (out / CANDIDATES).exists():
        raise FileError(f"{model} is the model of another command, so it is not replaced; choose another folder")


def write_candidates(out: Path, budget: Budget, results: Sequence[CandidateResult]) -> None:
    """Write every candidate, what it costs untrained, and what became of it so far."""
    content = {"budget": str(budget), "candidates": [result.to_dict() for result in results]}
    write_json(out / CANDIDATES, content, overwrite=False)


def write(out: Path, content: dict[str, Any], chosen: CandidateFile | None) -> Path | None:
    """Write the results of a search whose files were scored and measured.

    Args:
        out: The folder of the search.
        content: As ``to_dict`` gives it.
        chosen: The chosen file; None where none keeps the limits.

    Returns:
        The chosen model under its name in ``out``; None without one.
    """
    check_place(out)
    for stale in (out / CHOSEN, *_model_files(out)):
        stale.unlink(missing_ok=True)
    write_json(out / PARETO, content, overwrite=False)
    write_text(out / PAGE, to_markdown(content), overwrite=False)
    if (picture := draw_benchmark(content)) is not None:
        with replacing(out / PLOT, overwrite=False) as temporary:
            temporary.write_bytes(picture)
    if chosen is None or chosen.path is None:
        return None
    for part in ModelFile(Path(chosen.path)).parts:
        with replacing(out / f"{MODEL}{part.suffix}", overwrite=False) as temporary:
            shutil.copyfile(part, temporary)
    model = (out / MODEL).with_suffix(Path(chosen.path).suffix)
    record = {"budget": content["budget"], "model_file": model.name, "model_sha256": content_key(model)}
    write_json(out / CHOSEN, {**content["chosen"], **record}, overwrite=False)
    return model


def to_dict(
    data: DatasetDescription,
    budget: Budget,
    settings: Settings,
    reference: Reference,
    results: Sequence[CandidateResult],
    chosen: CandidateFile | None,
) -> dict[str, Any]:
    """Return the content of ``pareto.json``: every candidate, the files that no other beats, the chosen one.

    Its ``rows`` are those of a ``benchmark.json``, and so it can be drawn as one.

    Args:
        data: What models were scored on.
        budget: The limits.
        settings: How it was searched and measured.
        reference: The teacher, measured beside the candidates.
        results: All candidates.
        chosen: The file that was chosen; None: none keeps the limits.
    """
    machine = describe_machine(threads=settings.threads or default_threads())
    teacher = reference.file
    rows = _rows(reference, results, chosen, threads=int(machine["threads"]))
    return {
        "segshrink": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "budget": str(budget),
        "size": settings.size,
        "threads": int(machine["threads"]),
        "data": data.name,
        "split": "val",
        "leaking": data.split.leaking,
        "teacher": {
            "name": reference.name,
            "parameters": reference.parameters,
            **asdict(teacher),
            "latency_ms": teacher.latency_ms or None,
        },
        "rows": rows,
        "front": [row["label"] for row in rows if row["on_front"]],
        "chosen": next((row for row in rows if row["chosen"]), None),
        "candidates": [_summary(result) for result in results],
    }


def to_markdown(content: dict[str, Any]) -> str:
    """Return ``pareto.json`` as a page: the choice, the files, and every candidate with what became of it."""
    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=select_autoescape(default_for_string=False),
    )
    environment.filters |= {"show": _show, "percent": percent, "cells": file_cells, "lowest": _lowest}
    template = resources.files("segshrink.compression.search").joinpath(f"{PAGE}.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(**content, columns=FILE_COLUMNS, notice=load_notice(content))


def load_notice(content: dict[str, Any]) -> str | None:
    """Say that other programs kept the machine busy while files or untrained candidates were timed; None: they didn't.

    Args:
        content: That of ``pareto.json``.
    """
    loads = [row["measurements"][0]["load"]["others"] for row in content["rows"]]
    loads += [file["load"] for candidate in content["candidates"] for file in candidate["untrained"]]
    most = max((share for share in loads if share is not None), default=None)
    if not is_busy(most):
        return None
    return (
        f"other programs took up to {percent(most)} of the cores while latencies were measured, so these are too long: "
        "search again with --resume on a quiet machine"
    )


def file_cells(row: dict[str, Any]) -> list[str]:
    """Return a row of ``pareto.json`` as texts under ``FILE_COLUMNS``."""
    (measured,) = row["measurements"]
    return [
        row["label"],
        _show(row["mean_iou"], "miou"),
        NOTHING if row["drop"] is None else f"{row['drop']:.2f}",
        show("latency", measured["latency_ms"]["median"]),
        show("latency", measured["latency_ms"]["p95"]),
        percent(measured["load"]["others"]),
        show("size", row["file_bytes"]),
        show("memory", 1e6 * measured["peak_memory_mb"]),
    ]


def _model_files(out: Path) -> list[Path]:
    """Return the names that a chosen model and what describes it may have."""
    parts = [part for suffix in (".onnx", ".xml") for part in ModelFile(out / f"{MODEL}{suffix}").parts]
    return [*parts, out / f"{MODEL}.md", out / f"{MODEL}.stac.json"]


def _rows(
    reference: Reference, results: Sequence[CandidateResult], chosen: CandidateFile | None, *, threads: int
) -> list[dict[str, Any]]:
    """Return the teacher, where it was measured, and every file of every candidate, as rows of a benchmark."""
    teacher = reference.file
    rows = []
    if teacher.latency_ms:
        label = {"label": "teacher (PyTorch fp32)", "parameters": reference.parameters, "drop": 0.0}
        flags = {"times_faster": 1.0, "on_front": False, "chosen": False}
        rows.append({**_benchmark_row("teacher", teacher, threads), **label, **flags})
    files = [(result, file) for result in results for file in result.files]
    front = [id(file) for _, file in pareto_front(files, lambda pair: front_costs(pair[1]))]
    for result, file in files:
        row = {
            **_benchmark_row(f"{result.name} {file.precision}", file, threads),
            "label": f"{result.name}, {file.label}",
            "candidate": result.name,
            "path": file.path,
            "accuracy": file.accuracy,
            "parameters": result.parameters,
            "macs": result.macs,
            "drop": result.values(file, teacher_iou=reference.mean_iou)["drop"],
            "times_faster": teacher.latency_ms / file.latency_ms if teacher.latency_ms else None,
            "on_front": id(file) in front,
            "chosen": file is chosen,
        }
        rows.append(row)
    return rows


def _benchmark_row(model: str, file: CandidateFile, threads: int) -> dict[str, Any]:
    """Return a file's row as a ``benchmark.json`` has it."""
    measurement = {
        "batch": 1,
        "threads": threads,
        "latency_ms": {"median": file.latency_ms, "p95": file.latency_p95_ms},
        "peak_memory_mb": file.memory_mb,
        "load": {"others": file.load, "busy": is_busy(file.load)},
    }
    return {
        "model": model,
        "runtime": file.runtime,
        "runtime_title": runtime_title(file.runtime, "32" if file.runtime == "torch" else "auto"),
        "precision": file.precision,
        "mean_iou": file.mean_iou,
        "file_bytes": file.size_bytes,
        "measurements": [measurement],
    }


def _summary(result: CandidateResult) -> dict[str, Any]:
    candidate = result.candidate
    reasons = [result.reason, *(f"left out: {reason}" for reason in result.refused)]
    return {
        **result.to_dict(),
        "id": candidate.id,
        "options": dict(candidate.options),
        "reason": "; ".join(filter(None, reasons)),
    }


def _lowest(files: Sequence[dict[str, Any]], key: str, quantity: str, factor: float = 1.0) -> str:
    """Show the lowest of what a candidate's untrained files cost, and which one costs so much."""
    file = min(files, key=lambda file: file[key], default=None)
    return NOTHING if file is None else f"{show(quantity, factor * file[key])} ({file['precision']})"


def _show(value: float | None, quantity: str) -> str:
    return NOTHING if value is None else show(quantity, value)
