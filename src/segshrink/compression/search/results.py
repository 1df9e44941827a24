"""The files of a search: ``candidates.json``, ``pareto.json`` and ``.png``, ``compress.md``, and the chosen model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segshrink.compression.budget import Budget, show
from segshrink.compression.search.records import Entry, MeasuredFile, Reference
from segshrink.compression.search.selection import front
from segshrink.compression.search.tools import Settings
from segshrink.config import DatasetDescription
from segshrink.errors import FileError
from segshrink.files import content_key, refuse_foreign, replacing, write_json, write_text
from segshrink.formatting import NOTHING, percent
from segshrink.machine import default_threads, describe_machine
from segshrink.profiling.load import is_busy
from segshrink.profiling.scatter import draw_benchmark
from segshrink.records import Record
from segshrink.version import __version__

CANDIDATES, PARETO, PLOT = "candidates.json", "pareto.json", "pareto.png"
CHOSEN, PAGE = "chosen.json", "compress.md"
MODEL = "model"
_TITLES = {"torch": "PyTorch fp32", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


class _Chosen(Record):
    model_sha256: str | None = None


@dataclass(frozen=True)
class Findings:
    """What a search found out.

    Attributes:
        data: What models were scored on.
        budget: The limits.
        settings: How it was searched and measured.
        reference: The teacher, measured beside the candidates.
        entries: All candidates.
        chosen: The file that was chosen; None: none keeps the limits.
    """

    data: DatasetDescription
    budget: Budget
    settings: Settings
    reference: Reference
    entries: tuple[Entry, ...]
    chosen: MeasuredFile | None


def check_place(out: Path) -> None:
    """Refuse a folder where a search would replace what this program didn't write, or a model of another command.

    Raises:
        FileError: There is such a file.
    """
    refuse_foreign(*(out / name for name in (CANDIDATES, PARETO, PLOT, CHOSEN, PAGE)))
    record = _Chosen.read_if_present(out / CHOSEN)
    chosen = record and record.model_sha256
    refuse_foreign(*(path for path in _model_files(out) if not (path.is_file() and content_key(path) == chosen)))
    found = next((path for path in _model_files(out) if path.exists()), None)
    if found is not None and not (out / CANDIDATES).exists():
        raise FileError(f"{found} is the model of another command, so it is not replaced; choose another folder")


def _model_files(out: Path) -> list[Path]:
    return [out / f"{MODEL}{suffix}" for suffix in (".onnx", ".xml", ".bin", ".md", ".stac.json")]


def write_candidates(out: Path, budget: Budget, entries: Sequence[Entry]) -> None:
    """Write every candidate, what it costs untrained, and what became of it so far."""
    write_json(
        out / CANDIDATES, {"budget": str(budget), "candidates": [entry.to_dict() for entry in entries]}, overwrite=False
    )


def write(out: Path, found: Findings) -> Path | None:
    """Write the results of a search whose files were scored and measured.

    Returns:
        The chosen model under its name in ``out``; None when none keeps the limits.
    """
    check_place(out)
    for stale in (out / CHOSEN, *_model_files(out)):
        stale.unlink(missing_ok=True)
    content = to_dict(found)
    write_json(out / PARETO, content, overwrite=False)
    write_text(out / PAGE, to_markdown(content), overwrite=False)
    if (picture := draw_benchmark(out / PARETO)) is not None:
        with replacing(out / PLOT, overwrite=False) as temporary:
            temporary.write_bytes(picture)
    if found.chosen is None or found.chosen.path is None:
        return None
    model = copy_model(Path(found.chosen.path), out)
    told = {"budget": str(found.budget), "model_file": model.name, "model_sha256": content_key(model)}
    write_json(out / CHOSEN, {**content["chosen"], **told}, overwrite=False)
    return model


def to_dict(found: Findings) -> dict[str, Any]:
    """Return the content of ``pareto.json``: every candidate, the files that no other beats, the chosen one.

    Its ``rows`` are those of a ``benchmark.json``, and so it can be drawn as one.
    """
    machine = describe_machine(threads=found.settings.threads or default_threads())
    threads = int(machine["threads"])
    rows = _rows(found, threads)
    return {
        "segshrink": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "budget": str(found.budget),
        "size": found.settings.size,
        "threads": threads,
        "data": found.data.name,
        "split": "val",
        "leaking": found.data.split.leaking,
        "teacher": asdict(found.reference),
        "rows": rows,
        "front": [row["label"] for row in rows if row["on_front"]],
        "chosen": next((row for row in rows if row["chosen"]), None),
        "candidates": [_summary(entry) for entry in found.entries],
    }


def to_markdown(content: dict[str, Any]) -> str:
    """Return ``pareto.json`` as a page: the choice, the files, and every candidate with what became of it."""
    machine, teacher, chosen = content["machine"], content["teacher"], content["chosen"]
    lines = [
        f"# Budget {content['budget']}",
        "",
        _sentence(chosen, teacher),
        "",
        f"Measured {content['date']} with segshrink {content['segshrink']} on {machine['cpu']}, {machine['threads']} "
        f"threads, one {content['size']}x{content['size']} image, raw pixels in, classes out; medians of runs that "
        "alternate between the files; load: other programs' share of the cores. mIoU is of the file itself on the "
        "whole validation split.",
        "",
        *([f"**{notice[0].upper()}{notice[1:]}.**", ""] if (notice := load_notice(content)) else []),
        "| file | mIoU | drop in points | latency | p95 | load | size | memory | front |",
        "|---|---|---|---|---|---|---|---|---|",
        *[_line(row) for row in content["rows"]],
        "",
        "## Every candidate",
        "",
        "| candidate | parameters | MACs | untrained: latency | load | size | memory | what became of it |",
        "|---|---|---|---|---|---|---|---|",
        *[_candidate_line(one) for one in content["candidates"]],
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def load_notice(content: dict[str, Any]) -> str | None:
    """Say that other programs kept the machine busy while files or untrained candidates were timed; None: they didn't.

    Args:
        content: That of ``pareto.json``.
    """
    timed = [row["measurements"][0]["load"]["others"] for row in content["rows"]]
    timed += [file["load"] for one in content["candidates"] for file in one["untrained"]]
    most = max((share for share in timed if share is not None), default=None)
    if not is_busy(most):
        return None
    return (
        f"other programs took up to {percent(most)} of the cores while latencies were measured, so these are too long: "
        "search again with --resume on a quiet machine"
    )


def copy_model(file: Path, out: Path) -> Path:
    """Copy a model file, and the weights that OpenVINO keeps beside it, into a folder as ``model.*``."""
    out.mkdir(parents=True, exist_ok=True)
    for part in [file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]:
        with replacing(out / f"{MODEL}{part.suffix}", overwrite=False) as temporary:
            shutil.copyfile(part, temporary)
    return out / f"{MODEL}{file.suffix}"


def _rows(found: Findings, threads: int) -> list[dict[str, Any]]:
    """Return the teacher, where it was measured, and every file of every candidate."""
    reference = found.reference
    rows = []
    if reference.latency_ms is not None:
        teacher = MeasuredFile(
            runtime="torch",
            precision="fp32",
            size_bytes=reference.size_bytes or 0,
            latency_ms=reference.latency_ms,
            latency_p95_ms=reference.latency_p95_ms or reference.latency_ms,
            memory_mb=reference.memory_mb or 0.0,
            mean_iou=reference.mean_iou,
            load=reference.load,
        )
        told = {"label": "teacher (PyTorch fp32)", "parameters": reference.parameters, "drop": 0.0, "times_faster": 1.0}
        rows.append({**_measured("teacher", teacher, threads), **told, "on_front": False, "chosen": False})
    points = [(entry, file) for entry in found.entries for file in entry.files]
    best = [file for _, file in front(points)]
    for entry, file in points:
        faster = None if reference.latency_ms is None else reference.latency_ms / file.latency_ms
        told = {
            "label": f"{entry.name}, {file.label}",
            "candidate": entry.name,
            "path": file.path,
            "accuracy": file.accuracy,
            "parameters": entry.parameters,
            "macs": entry.macs,
            "drop": entry.values(file, teacher_iou=reference.mean_iou)["drop"],
            "times_faster": faster,
            "on_front": any(one is file for one in best),
            "chosen": file is found.chosen,
        }
        rows.append({**_measured(f"{entry.name} {file.precision}", file, threads), **told})
    return rows


def _measured(model: str, file: MeasuredFile, threads: int) -> dict[str, Any]:
    """Return a file's row as a ``benchmark.json`` has it."""
    latency = {"median": file.latency_ms, "p95": file.latency_p95_ms}
    return {
        "model": model,
        "runtime": file.runtime,
        "runtime_title": _TITLES[file.runtime],
        "precision": file.precision,
        "mean_iou": file.mean_iou,
        "file_bytes": file.size_bytes,
        "measurements": [
            {
                "batch": 1,
                "threads": threads,
                "latency_ms": latency,
                "peak_memory_mb": file.memory_mb,
                "load": {"others": file.load, "busy": is_busy(file.load)},
            }
        ],
    }  # fmt: skip


def _summary(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "id": entry.candidate.id,
        "options": dict(entry.candidate.options),
        "parameters": entry.parameters,
        "macs": entry.macs,
        "mean_iou": entry.mean_iou,
        "status": entry.status,
        "reason": "; ".join(filter(None, (entry.reason, *(f"left out: {one}" for one in entry.refused)))),
        "untrained": [
            {
                "runtime": file.runtime,
                "precision": file.precision,
                "latency_ms": file.latency_ms,
                "size_bytes": file.size_bytes,
                "memory_mb": file.memory_mb,
                "load": file.load,
            }
            for file in entry.untrained
        ],
    }


def _sentence(chosen: dict[str, Any] | None, teacher: dict[str, Any]) -> str:
    if chosen is None:
        return "No candidate keeps the budget; what each one lacks stands below."
    latency = chosen["measurements"][0]["latency_ms"]["median"]
    busy = " (on a busy machine)" if chosen["measurements"][0]["load"]["busy"] else ""
    faster = (
        f"; {chosen['times_faster']:.1f} times as fast as the teacher in PyTorch fp32{busy}"
        if teacher["latency_ms"]
        else ""
    )
    drop = chosen["drop"]
    return (
        f"Chosen: {chosen['label']}. mIoU {chosen['mean_iou']:.3f}, {abs(drop):.2f} points "
        f"{'below' if drop >= 0 else 'above'} the teacher's {teacher['mean_iou']:.3f}; "
        f"{show('latency', latency)}{busy}; {show('size', chosen['file_bytes'])}{faster}."
    )


def _line(row: dict[str, Any]) -> str:
    (measured,) = row["measurements"]
    cells = [
        row["label"],
        _told(row["mean_iou"], "miou"),
        NOTHING if row["drop"] is None else f"{row['drop']:.2f}",
        _told(measured["latency_ms"]["median"], "latency"),
        _told(measured["latency_ms"]["p95"], "latency"),
        percent(measured["load"]["others"]),
        _told(row["file_bytes"], "size"),
        _told(1e6 * measured["peak_memory_mb"], "memory"),
        "chosen" if row["chosen"] else "yes" if row["on_front"] else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _candidate_line(one: dict[str, Any]) -> str:
    files = one["untrained"]
    cells = [
        one["name"],
        _told(one["parameters"] or None, "parameters"),
        _told(one["macs"] or None, "macs"),
        _best(files, "latency_ms", "latency", 1.0),
        percent(max((file["load"] for file in files if file["load"] is not None), default=None)),
        _best(files, "size_bytes", "size", 1.0),
        _best(files, "memory_mb", "memory", 1e6),
        one["reason"].replace("|", "/"),
    ]
    return "| " + " | ".join(cells) + " |"


def _best(files: Sequence[dict[str, Any]], key: str, quantity: str, factor: float) -> str:
    """Show the lowest of a candidate's files, and of which."""
    if not files:
        return NOTHING
    lowest = min(files, key=lambda file: file[key])
    return f"{show(quantity, factor * lowest[key])} ({lowest['precision']})"


def _told(value: float | None, quantity: str) -> str:
    return NOTHING if value is None else show(quantity, value)
