"""Claims: ``segshrink demo`` teaches, takes nine minutes of processor time, and its page opens without a warning.

    python benchmarks/demo.py --out /tmp/demos              # ten minutes a seed

Runs the whole command once per seed of its trainings, one after the other; finished ones are not run again. Goals:
every class of every teacher reaches an IoU of 0.40, the controls differ by at most 0.04 mIoU, the students gain more on
average than the gains differ (standard deviation), no notice stands on the page, and it takes nine minutes of all
processors together. Results go beside the script, by processor. Pages say where the machine was busy while models were
timed: ``--again`` times those of finished demos anew, and counts the first run's minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processor_results import write_results
from segshrink import RunFolder, __version__
from segshrink.files import read_json, write_json
from segshrink.machine import describe_machine

LEAST_IOU, MOST_RANGE, MOST_MINUTES = 0.40, 0.04, 9.0
COST = "cost.json"


def run(folder: Path, seed: int, *, again: bool) -> None:
    """Run the command and note its time; where that is noted already, time the models anew if wanted."""
    noted = (folder / COST).exists()
    if noted and not again:
        return
    for profile in folder.glob("**/profile.json"):
        profile.unlink()
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "segshrink.cli", "demo", "--out", str(folder), "--seed", str(seed)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    if noted:
        return
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cost = {
        "processor_minutes": spent / 60,
        "minutes": (time.perf_counter() - began) / 60,
        # Of the largest process until now: that of an earlier seed where it was larger.
        "peak_memory_mb": after.ru_maxrss / 1024,
    }
    write_json(folder / COST, cost)


def record(folder: Path, seed: int) -> dict[str, Any]:
    """Return what a finished demo came to."""
    folders = {"teacher": folder / "teacher", "control": folder / "control", "student": folder}
    scores = {role: RunFolder(path).evaluation().scores for role, path in folders.items()}
    return {
        "seed": seed,
        **{role: each.mean_iou for role, each in scores.items()},
        "least_iou_of_teacher": min(iou for iou in scores["teacher"].iou if iou is not None),
        "notices": [notice["title"] for notice in read_json(folder / "report.json")["notices"]],
        **read_json(folder / COST),
    }


def verdicts(runs: list[dict[str, Any]]) -> list[str]:
    """Return a line for each goal."""
    gains = [100 * (run["student"] - run["control"]) for run in runs]
    controls = [run["control"] for run in runs]
    spread = statistics.stdev(gains) if len(gains) > 1 else float("inf")
    least = min(run["least_iou_of_teacher"] for run in runs)
    notices = sum(len(run["notices"]) for run in runs)
    minutes = max(run["processor_minutes"] for run in runs)
    wide = max(controls) - min(controls)
    goals = (
        (least >= LEAST_IOU, f"least IoU of a teacher's class {least:.2f}, at least {LEAST_IOU:.2f}"),
        (wide <= MOST_RANGE, f"range of the controls {wide:.3f}, at most {MOST_RANGE:.2f}"),
        (statistics.mean(gains) > spread, f"mean gain {statistics.mean(gains):.1f} points, more than {spread:.1f}"),
        (notices == 0, f"{notices} notices on the pages, none"),
        (minutes <= MOST_MINUTES, f"most minutes of processors {minutes:.1f}, at most {MOST_MINUTES:.0f}"),
    )
    return [f"- {'met' if met else 'missed'}: {text}" for met, text in goals]


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine = results["machine"]
    rows = [
        f"| {run['seed']} | {run['teacher']:.3f} | {run['control']:.3f} | {run['student']:.3f} | "
        f"{100 * (run['student'] - run['control']):+.1f} | {run['least_iou_of_teacher']:.2f} | "
        f"{run['processor_minutes']:.1f} | {run['minutes']:.1f} | {run['peak_memory_mb']:,.0f} | "
        f"{'; '.join(run['notices']) or '–'} |"
        for run in results["runs"]
    ]
    return "\n".join(
        [
            "# The demo",
            "",
            f"Written by `benchmarks/demo.py`, {results['created']}, segshrink {results['segshrink']}, "
            f"{machine['cpu']}, torch {machine['torch']}, Python {machine['python']}. mIoU on the ten scenes that "
            "judge; minutes by the clock may have passed beside other work.",
            "",
            "| seed | teacher | control | student | gain, points | teacher's worst class | processor minutes | minutes "
            "| largest process, MB | notices |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
            *rows,
            "",
            *verdicts(results["runs"]),
            "",
        ]
    )


def main() -> None:
    """Run the command for every seed, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the demos' folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--again", action="store_true", help="time the models of finished demos anew")
    given = parser.parse_args()
    runs = []
    for seed in given.seeds:
        run(given.out / str(seed), seed, again=given.again)
        runs.append(record(given.out / str(seed), seed))
    machine = describe_machine()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    results = {"created": created, "segshrink": __version__, "machine": machine, "runs": runs}
    write_results("demo", results, to_markdown)


if __name__ == "__main__":
    main()
