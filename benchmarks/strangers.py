"""Claim: three commands take a folder that nobody described to a small model in a page, in 45 minutes on two cores.

    python benchmarks/strangers.py --work /runs/strangers camvid=/data/CamVid voc=/data/VOC2012
        [--teacher voc=deeplab.tflite]

Each folder goes through ``segshrink init FOLDER --yes``, ``segshrink distill recipe.yaml --control`` and ``segshrink
compress recipe.yaml``, one after the other, as a user would type them. A folder's earlier row is replaced, the others
stay. A command that ends by the gate, which finds little to distil, is no refusal.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processor_results import RESULTS
from segshrink.files import read_json, write_json, write_text
from segshrink.machine import default_threads, describe_machine

ROOT = Path(__file__).resolve().parents[1]
# A model's place in a report, and how the gate's sentence begins.
ROLES, GATE = ("student", "control", "teacher"), "error: there is little to distil"


def run(name: str, folder: Path, teacher: str | None, work: Path) -> dict[str, Any]:
    """Give a folder to the three commands and return what came of it."""
    place = work / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    commands = {
        "init": ["init", str(folder), "--yes", *(["--teacher", teacher] if teacher else [])],
        "distill": ["distill", "recipe.yaml", "--control"],
        "compress": ["compress", "recipe.yaml"],
    }
    row: dict[str, Any] = {"folder": name, "teacher": Path(teacher).name if teacher else None, "gate": False}
    begin, environment = time.time(), {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for verb, command in commands.items():
        started = time.time()
        with (place / f"{verb}.log").open("w") as log:
            line = [sys.executable, "-m", "segshrink.cli", *command]
            status = subprocess.call(line, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT)
        row[verb] = {"status": status, "minutes": (time.time() - started) / 60}
        row["gate"] |= GATE in (place / f"{verb}.log").read_text()
        print(name, verb, row[verb], flush=True)
    row["minutes"] = (time.time() - begin) / 60
    row["expected_minutes"] = expected_minutes(place / "recipe.yaml")
    written = datetime.now(UTC).isoformat(timespec="seconds")
    maps = [page.stat().st_mtime for page in place.glob("runs/*/map.html")]
    row |= {"created": written, "machine": describe_machine(), "threads": default_threads()}
    row["minutes_to_map"] = (min(maps) - begin) / 60 if maps else None
    for report in place.glob("runs/*/report.json"):
        if not (report.parent / "chosen.json").exists():
            row["report"] = comparison(read_json(report))
    for chosen in place.glob("runs/*/chosen.json"):
        found = read_json(chosen)
        row["chosen"] = {key: found[key] for key in ("candidate", "precision", "mean_iou", "file_bytes", "drop")}
        row["page_bytes"] = (chosen.parent / "map.html").stat().st_size
    return row


def expected_minutes(recipe: Path) -> list[float]:
    """Return the minutes that `init` expected `distill` and `compress` to take, which a recipe's first line says."""
    return [60 * float(hours) for hours in re.findall(r"[0-9.]+\d", recipe.read_text().splitlines()[0])]


def comparison(report: dict[str, Any]) -> dict[str, Any]:
    """Return the mIoU of each model of a report, and what it says of them."""
    roles = [model["role"] for model in report["models"]]
    (scores,) = (row["values"] for row in report["rows"] if row["key"] == "mean_iou")
    said = [report["headline"], report["caveat"], *(each["text"] for each in report["notices"])]
    return {"mean_iou": dict(zip(roles, scores, strict=True)), "said": [each for each in said if each]}


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results as a Markdown page."""
    heads = ["folder", "teacher", "all", "init", "distill (expected)", "compress (expected)", "to the first page"]
    lines = [
        "# Folders that nobody described",
        "",
        "Written by `benchmarks/strangers.py`, which explains it. Minutes of the three commands and those that `init` "
        "expected, mIoU of the networks that `distill` compares, and the model that `compress` chose.",
        "",
        f"| {' | '.join([*heads, *ROLES])} | chosen |",
        f"| --- | --- |{' ---: |' * (len(heads) - 2 + len(ROLES))} --- |",
    ]
    for row in rows:
        scores = row["report"]["mean_iou"] if "report" in row else {}
        chosen = row.get("chosen")
        cells = [
            row["folder"],
            row["teacher"] or "trained",
            f"{row['minutes']:.1f}",
            f"{row['init']['minutes']:.1f}",
            *(
                f"{row[verb]['minutes']:.1f} ({expected:.0f})"
                for verb, expected in zip(("distill", "compress"), row["expected_minutes"], strict=True)
            ),
            f"{row['minutes_to_map']:.1f}" if row["minutes_to_map"] else "",
            *(f"{scores[role]:.3f}" if role in scores else "" for role in ROLES),
            f"{chosen['candidate']}, {chosen['precision']}, {chosen['file_bytes'] / 1e3:.0f} kB, "
            f"{chosen['mean_iou']:.3f} mIoU"
            if chosen
            else "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for row in rows:
        said = " ".join(row["report"]["said"]) if "report" in row else ""
        gate = " The gate stopped before the student was trained." if row["gate"] else ""
        lines += [
            f"- {row['folder']}: {row['created'][:10]}, {row['machine']['cpu']}, {row['threads']} threads.{gate} {said}"
        ]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Give the folders to the commands and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER", help="folders to try")
    parser.add_argument("--teacher", action="append", default=[], metavar="NAME=TEACHER", help="of one folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    given = parser.parse_args(arguments)
    teachers = dict(each.split("=", 1) for each in given.teacher)
    page = RESULTS / "strangers.json"
    for name, folder in (each.split("=", 1) for each in given.folders):
        row = run(name, Path(folder).resolve(), teachers.get(name), given.work.resolve())
        earlier = read_json(page)["rows"] if page.exists() else []
        rows = sorted([*(each for each in earlier if each["folder"] != name), row], key=lambda each: each["folder"])
        write_json(page, {"rows": rows})
        write_text(page.with_suffix(".md"), to_markdown(rows))


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "160")
    main(sys.argv[1:])
