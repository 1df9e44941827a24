"""Claim: the small file that the proof hands over is 20 times as fast as the best teacher alone, and as good.

    python benchmarks/proof_int8.py --runs RUNS --data ../shared/data      # on a quiet machine; a quarter of an hour

The students of the bank in ``proof.py`` become files of 8-bit integers, trained for 8 bits where that loses anything.
Layers to leave in float and the file that is handed over are chosen on tile 6 of the training tiles, the ranges of
numbers on tiles 4, 7 and 8: nothing is chosen on what is judged. The file is timed by turns with the best single
teacher, in PyTorch in float32 and as an int8 file of its own. ``proof.py --check`` reads what this writes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segshrink import EvaluationRecord, __version__, benchmark, evaluate, load_dataset, quantize
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.config import DatasetDescription
from segshrink.files import read_json, write_json, write_text
from segshrink.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# An ONNX file, as ``compress`` hands over, and what runs it quickest.
WRITTEN_FOR, RUNTIME, SIZE = "onnxruntime", "openvino", 512
CHOICES = ('split={train: ["Tile 4", "Tile 7", "Tile 8"], val: ["Tile 6"]}',)
# Points of mIoU that a student may lose before it is trained for 8 bits.
LOST = 0.1


def finished(runs: Path, pattern: str) -> list[Path]:
    """Return the folders of the cells that match and are judged, in order."""
    return sorted(path.parent for path in runs.glob(f"{pattern}/judged.json"))


def mean_iou(run: Path) -> float:
    """Return what a cell scored on the judged tiles."""
    return EvaluationRecord.model_validate(read_json(run / "judged.json")["evaluation"]).scores.mean_iou


def quantized(run: Path, choosing: DatasetDescription, out: Path, max_drop: float) -> dict[str, Any]:
    """Write a student or teacher in 8 bits; return the file, and what it came to on the tile for choices."""
    result = quantize(run, choosing, out=out, runtimes=[WRITTEN_FOR], max_drop=max_drop)
    row, whole = result.row(WRITTEN_FOR, "int8"), result.row(WRITTEN_FOR, "fp32")
    return {
        "run": run.name,
        "file": row.file,
        "whole": whole.file,
        "chosen_by": row.mean_iou,
        "drop": row.drop,
        "float_layers": len(row.float_layers),
        "distilled": row.distilled,
        "bytes": row.bytes,
    }


def main(arguments: Sequence[str]) -> int:
    """Quantize, choose, time, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of proof.py's runs")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--students", default="dubai/pool-8000-*", help="cells; only for a trial of this script")
    parser.add_argument("--teachers", default="dubai/bank/member-*", help="likewise")
    given = parser.parse_args(arguments)
    root = f"root={given.data.resolve() / 'dubai'}"
    judged, choosing = (load_dataset(ROOT / "configs" / "data" / "dubai.yaml", [root, *more]) for more in ((), CHOICES))
    teacher = max(finished(given.runs, given.teachers), key=mean_iou)
    with tempfile.TemporaryDirectory() as folder:
        runs = finished(given.runs, given.students)
        students = [quantized(run, choosing, Path(folder) / run.name, LOST) for run in runs]
        chosen = max(students, key=lambda student: student["chosen_by"])
        for kind in ("file", "whole"):
            scored = evaluate(chosen[kind], judged, runtime=RUNTIME, pictures=0)
            chosen[f"{kind}_judged"] = scored.scores.mean_iou
        small_teacher = quantized(teacher, choosing, Path(folder) / "teacher", 100.0)["file"]
        timed = [(teacher, "torch", "32"), (small_teacher, RUNTIME, "auto"), (chosen["file"], RUNTIME, "auto")]
        result = benchmark(
            [source for source, _, _ in timed],
            runtimes=["torch", RUNTIME],
            precisions=["32", "auto"],
            size=SIZE,
            batches=[1],
        )
    latency = [
        {
            measurement.job.cores: measurement.latency_ms["median"]
            for row in result.rows
            if (row.source, row.runtime, row.precision) == each
            for measurement in row.measurements
            if measurement.latency_ms
        }
        for each in timed
    ]
    record = {
        "segshrink": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "load": result.load.to_dict(),
        "teacher": {"run": teacher.name, "mean_iou": mean_iou(teacher)},
        "students": [{**student, "file": student["file"].name, "whole": student["whole"].name} for student in students],
        "chosen": chosen["run"],
        "latency_ms": dict(zip(("teacher", "teacher in int8", "handed over"), latency, strict=True)),
    }
    write_json(given.results / "proof_int8.json", record)
    write_text(given.results / "proof_int8.md", page(record))
    print(page(record))
    return 0


def page(record: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, latency = record["machine"], record["latency_ms"]
    (chosen,) = (student for student in record["students"] if student["run"] == record["chosen"])
    threads = list(latency["teacher"])
    lines = [
        "# The students as int8 files",
        "",
        f"Written by `benchmarks/proof_int8.py`, {record['created']}, segshrink {record['segshrink']}, "
        f"{machine['cpu']}, torch {machine['torch']}.",
        "",
        "| student | mIoU on tile 6 | less than in float32, points | layers in float | trained for 8 bits | kB |",
        "|---|---:|---:|---:|---|---:|",
    ]
    lines += [
        f"| {each['run']} | {each['chosen_by']:.3f} | {each['drop']:.2f} | {each['float_layers']} | "
        f"{'yes' if each['distilled'] else 'no'} | {each['bytes'] / 1000:.0f} |"
        for each in record["students"]
    ]
    lines += [
        "",
        f"Handed over is {chosen['run']}, the best on tile 6. On the judged tiles it has {chosen['file_judged']:.3f}, "
        f"in float32 {chosen['whole_judged']:.3f}; the best single teacher, {record['teacher']['run']}, "
        f"{record['teacher']['mean_iou']:.3f}. Milliseconds for {SIZE} × {SIZE} pixels, by turns, medians:",
        "",
        f"| | {' | '.join(f'{count} threads' if int(count) > 1 else '1 thread' for count in threads)} |",
        f"|---|{'---:|' * len(threads)}",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{times[count]:.1f}' for count in threads)} |" for name, times in latency.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    restart_with_tuned_allocator()
    sys.exit(main(sys.argv[1:]))
