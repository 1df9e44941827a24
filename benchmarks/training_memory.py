"""Claim: a distillation takes half the memory of a plain PyTorch loop, the whole process counted.

    python benchmarks/training_memory.py                  # ten minutes; results beside the scripts
    python benchmarks/training_memory.py --steps 1 --rounds 1 --out /tmp/smoke

The networks of ``configs/dubai.yaml``: an smp Unet on EfficientNet-Lite2 teaches ``mobile`` with steps of 8 crops of
256 pixels. ``plain`` and ``cached`` are the loops of ``teacher_cache.py``; each further row is one lever more:

- ``in n batches``: the same step made of n smaller batches (``training.accumulate``, what ``train --memory`` chooses);
- ``in n batches, one thread``: the same on one thread, whose kernels need fewer buffers.

Every process is a fresh one, by turns; the largest resident set counts, and beside it what came on top of Python and
the libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import teacher_cache
from processor_results import RESULTS, results_stem
from segshrink.allocator import TUNED_ALLOCATOR
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine, peak_memory_mb

TEACHER, STUDENT = "smp:Unet/tu-tf_efficientnet_lite2", "mobile"
# Name → batches a step is made of (0: the plain loop), threads.
VARIANTS = {
    "plain": (0, 2),
    "cached": (1, 2),
    "cached, in 2 batches": (2, 2),
    "cached, in 4 batches": (4, 2),
    "cached, in 8 batches": (8, 2),
    "cached, in 8 batches, one thread": (8, 1),
}
WARMUP = 1


def child(variant: str, work: Path, *, steps: int) -> None:
    """Train in this process and print what it took as a line of JSON."""
    import torch

    batches, threads = VARIANTS.get(variant, (1, 2))
    torch.set_num_threads(threads)
    teacher_cache.TEACHERS = {"teacher": TEACHER}
    if variant == "prepare":
        teacher_cache.prepare(work)
        return
    total = WARMUP + steps
    if batches:
        clock = teacher_cache.our_steps(work, "teacher", STUDENT, steps=total, cached=True, accumulate=batches)
    else:
        clock = teacher_cache.plain_steps(work, "teacher", STUDENT, steps=total)
    each = max(1, batches)
    ends = [moment for moment, _ in clock.ends][each - 1 :: each]  # of whole steps
    seconds = statistics.median(later - earlier for earlier, later in pairwise(ends[WARMUP - 1 :]))
    print(json.dumps({"step_s": seconds, "peak_mb": peak_memory_mb(), "libraries_mb": clock.libraries_mb}))


def run_child(variant: str, work: Path, *, steps: int) -> dict[str, float]:
    """Train in a fresh process."""
    threads = str(VARIANTS.get(variant, (1, 2))[1])
    environment = {**os.environ, "SEGSHRINK_CACHE": str(work / "cache"), "OMP_NUM_THREADS": threads}
    if variant != "plain":
        environment |= TUNED_ALLOCATOR
    command = [sys.executable, __file__, "--variant", variant, "--work", str(work), "--steps", str(steps)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1])) if variant != "prepare" else {}


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, plain = record["machine"], record["rows"]["plain"]
    beyond = plain["peak_mb"] - plain["libraries_mb"]
    lines = [
        "# Memory of a distillation",
        "",
        f"Steps of {teacher_cache.BATCH} crops of {teacher_cache.CROP} pixels, `{TEACHER}` teaches `{STUDENT}`, on "
        f"{machine['cpu']} with torch {machine['torch']}, {record['created'][:10]}; medians over {record['rounds']} "
        "processes. `python benchmarks/training_memory.py` measures it again and says what is what.",
        "",
        "| loop | peak MB | of plain | beyond libraries, MB | of plain | s a step |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in record["rows"].items():
        added = row["peak_mb"] - row["libraries_mb"]
        lines.append(
            f"| {name} | {row['peak_mb']:.0f} | {row['peak_mb'] / plain['peak_mb']:.2f} | {added:.0f} | "
            f"{added / beyond:.2f} | {row['step_s']:.2f} |"
        )
    least = min(record["rows"].values(), key=lambda row: float(row["peak_mb"]))
    verdict = "reached" if least["peak_mb"] <= plain["peak_mb"] / 2 else "missed"
    lines += ["", f"- Half the memory of the plain loop, the whole process counted: {verdict}.", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark, or one of its trainings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each variant")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.variant:
        child(given.variant, given.work, steps=given.steps)
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        run_child("prepare", Path(name), steps=1)
        for _ in range(given.rounds):
            for variant, taken in found.items():
                taken.append(run_child(variant, Path(name), steps=given.steps))
                print(variant, {key: round(value, 2) for key, value in taken[-1].items()}, flush=True)
    rows = {
        variant: {key: statistics.median(one[key] for one in taken) for key in taken[0]}
        for variant, taken in found.items()
    }
    machine = describe_machine(threads=2)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"created": now, "machine": machine, "rounds": given.rounds, "steps": given.steps, "rows": rows}
    stem = results_stem(given.out, "training_memory", machine["cpu"])
    write_json(stem.with_suffix(".json"), record)
    write_text(stem.with_suffix(".md"), to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
