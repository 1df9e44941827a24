"""Claim: ten times as many images take at most 11 times as long and no more memory, with 256 open files at most.

    python benchmarks/growth.py                                   # half an hour; results beside the scripts
    python benchmarks/growth.py --counts 100 1000 --rounds 1 --out /tmp/smoke
    python benchmarks/growth.py --only "read the store"           # that row again, the others as they are

Images of 24 pixels and their masks, half of them judged; a network of 1,000 parameters on one thread. Each row is done
in a process of its own that may open 256 files: first with 8 images, so that everything is loaded, then with as many as
the column says. What counts is processor time, and the largest resident set beyond what the first few images took: the
median of some rounds, which go through all counts and rows in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segshrink import (
    ClassMap,
    Dataset,
    SceneStore,
    TeacherCache,
    __version__,
    build_model,
    export_onnx,
    load_dataset,
    open_dataset,
    open_teacher,
    report,
)
from segshrink.cli import main as segshrink
from segshrink.files import read_json, write_json, write_text
from segshrink.machine import describe_machine, peak_memory_mb
from segshrink.profiling import LoadWatch

RESULTS = Path(__file__).resolve().parent / "results"
COUNTS = (1_000, 10_000)
FILES, SIDE, FIRST = 256, 24, 8
# How many times as long ten times as many may take.
GOAL = 11.0
CLASSES = ("ground", "water")
# What was changed so that an image costs less: the change, the row, and for 1,000 images Python's function calls, looks
# at files (stat) and seconds, before and after, in turns on one busy machine.
LEVERS = (
    (
        "what the folder's listing says isn't asked again; one look before a file is opened, not three; names beside "
        "an image are texts, not paths",
        ("open a data set by wildcards", "1,097,000", "790,000", "15,000", "11,000", "0.91", "0.71"),
    ),
    ("the same", ("open a data set by a list file", "1,147,000", "898,000", "17,000", "15,000", "0.63", "0.70")),
    (
        "the same, and equal headers of decoded arrays are parsed once",
        ("read the store", "2,750,000", "1,740,000", "35,000", "32,000", "3.11", "2.11"),
    ),
)
DATA = """\
name: growth
images: "{images}"
masks: {masks}
classes: [{{name: ground, value: 0}}, {{name: water, value: 1}}]
split: {split}
"""
WILDCARDS = {"images": "*/images/*.png", "masks": "'*/masks/*.png'", "split": "{train: [train], val: [val]}"}
LISTS = {"images": "pairs.txt", "masks": "", "split": "{random: 0.5}"}


def draw(home: Path, count: int) -> None:
    """Write a data set of ``count`` images, described by wildcards and by a list file."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        part = home / ("train", "val")[number % 2]
        image, mask = part / "images" / f"{number}.png", part / "masks" / f"{number}.png"
        if number < 2:
            image.parent.mkdir(parents=True)
            mask.parent.mkdir(parents=True)
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(image)
        Image.fromarray((pixels[:, :, 0] > 127).astype(np.uint8)).save(mask)
        lines.append(f"{image.relative_to(home)} {mask.relative_to(home)}")
    write_text(home / "pairs.txt", "\n".join(lines))
    write_text(home / "wildcards.yaml", DATA.format(**WILDCARDS))
    write_text(home / "list.yaml", DATA.format(**LISTS))


def opened(home: Path, *, by: str = "wildcards") -> Dataset:
    """Find, pair and divide the images."""
    return open_dataset(load_dataset(home / f"{by}.yaml"))


def store_of(home: Path) -> SceneStore:
    """Decode what isn't decoded yet."""
    found = opened(home)
    return SceneStore([*found.train, *found.val], found.classes)


def read_store(home: Path) -> None:
    """Open the store and read every pixel twice."""
    store = store_of(home)
    for number in [*range(len(store)), *reversed(range(len(store)))]:
        store.image(number).sum()
        store.mask(number).sum()


def answer(home: Path) -> None:
    """Ask the teacher about every image, or see that its answers are there, and read them."""
    store = store_of(home)
    cache = TeacherCache(open_teacher(home.parent / "model", store.classes), [store])
    for number in range(len(cache)):
        cache.codes(number).sum()


def run(*arguments: object) -> None:
    """Run the command line with its output thrown away."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        status = segshrink([str(argument) for argument in arguments])
    if status:
        raise SystemExit(f"segshrink {arguments[0]} ended with exit status {status}")


def predict(home: Path, *options: str) -> None:
    """Predict all images of both parts."""
    run(
        "predict",
        home.parent / "model.onnx",
        home / "*" / "images" / "*.png",
        "-o",
        home / "maps",
        "--threads",
        1,
        *options,
    )


# In this order: what one has written is what the next reads.
ROWS: dict[str, Callable[[Path], object]] = {
    "open a data set by wildcards": opened,
    "open a data set by a list file": lambda home: opened(home, by="list"),
    "`inspect`": lambda home: run("inspect", home / "wildcards.yaml"),
    "decode all images into the store": store_of,
    "read the store": read_store,
    "compute a teacher's answers": answer,
    "read a teacher's answers": answer,
    "`predict`": lambda home: predict(home, "--overwrite"),
    "`predict`, all done before": predict,
    "`evaluate`, half the images": lambda home: run(
        "evaluate", home.parent / "model.onnx", "-d", home / "wildcards.yaml", "-o", home / "run"
    ),
    "`report`": lambda home: report([home / "run"]),
}


# What must have been done before a row.
NEEDS = {
    "read the store": "decode all images into the store",
    "compute a teacher's answers": "decode all images into the store",
    "read a teacher's answers": "compute a teacher's answers",
    "`predict`, all done before": "`predict`",
    "`report`": "`evaluate`, half the images",
}


def with_needs(rows: Sequence[str]) -> list[str]:
    """Return rows and all that they need, in the order of ``ROWS``."""
    wanted = set(rows)
    for row in reversed(ROWS):
        if row in wanted and row in NEEDS:
            wanted.add(NEEDS[row])
    return [row for row in ROWS if row in wanted]


def child(row: str, home: Path) -> None:
    """Do a row's work on the few images and on all, and print what it took."""
    import torch

    torch.set_num_threads(1)
    if sys.platform != "win32":
        from resource import RLIMIT_NOFILE, setrlimit

        setrlimit(RLIMIT_NOFILE, (FILES, FILES))
    ROWS[row](home.with_name(str(FIRST)))
    before, memory = time.process_time(), peak_memory_mb()
    ROWS[row](home)
    print(json.dumps({"seconds": time.process_time() - before, "added_mb": peak_memory_mb() - memory}))


def measure(work: Path, counts: Sequence[int], only: Sequence[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return for each row what each count took, the median of all rounds."""
    rows = with_needs(only)
    classes = ClassMap.build([(name, None, value) for value, name in enumerate(CLASSES)])
    model = build_model("unet", classes, options={"width": 4, "depth": 2})
    model.save(work / "model")
    export_onnx(model, work / "model.onnx")
    for count in (FIRST, *counts):
        draw(work / str(count), count)
    for row in rows:
        ROWS[row](work / str(FIRST))  # what later rows read
    found: dict[tuple[str, int], list[dict[str, float]]] = {(row, count): [] for row in rows for count in counts}
    for turn in range(rounds):
        for count, row in product(counts, rows):
            command = [sys.executable, __file__, "--row", row, "--home", str(work / str(count))]
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            # Nothing is decoded or answered yet when a round begins.
            environment = {**os.environ, **threads, "SEGSHRINK_CACHE": str(work / f"cache-{count}-{turn}")}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            taken = json.loads(done.stdout.splitlines()[-1])
            found[row, count].append(taken)
            print(f"{count:6,} {row}: {taken['seconds']:.2f} s, {taken['added_mb']:.0f} MB", flush=True)
    return {row: [medians(found[row, count]) for count in counts] for row in only}


def medians(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure of some rounds."""
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, counts = record["machine"], record["counts"]
    head = [
        "# What grows with the number of images",
        "",
        f"Written by `python benchmarks/growth.py`, {record['created']}, segshrink {record['segshrink']}, "
        f"{machine['cpu']}, Python {machine['python']}. Processor time on one thread, and memory beyond that for "
        f"{FIRST} images, of processes that may open {FILES} files; images of {SIDE} pixels; medians of "
        f"{record['rounds']} rounds, or as noted. Goal: ten times as many within {GOAL:g} times the time.",
        "",
        f"| work | {' | '.join(f'{count:,} images' for count in counts)} | times as long | more memory |",
        f"| --- |{' ---: |' * (len(counts) + 2)}",
    ]
    rows = []
    again = record.get("again", {})
    for row, taken in record["rows"].items():
        seconds = " | ".join(f"{one['seconds']:.2f} s" for one in taken)
        grown = taken[-1]["seconds"] / max(taken[0]["seconds"], 1e-3)
        memory = taken[-1]["added_mb"] - taken[0]["added_mb"]
        rows.append(f"| {row}{' °' if row in again else ''} | {seconds} | {grown:.1f} | {memory:.0f} MB |")
    foot = [f"° {row}: measured again {again[row]}." for row in again]
    levers = [
        "## What made an image cheaper",
        "",
        "| change | work | function calls, 1,000 images | looks at files | seconds |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {change} | {row} | {calls} → {fewer} | {looks} → {fewer_looks} | {slow} → {quick} |"
            for change, (row, calls, fewer, looks, fewer_looks, slow, quick) in LEVERS
        ),
        "",
        "Seconds of one busy machine, in turns; calls and looks are counts. Python's garbage collector is no lever: it "
        "takes 0.3 of 5.5 s when 5,000 images are found by wildcards.",
    ]
    return "\n".join([*head, *rows, "", *foot, *([""] if foot else []), *levers, ""])


def main(arguments: Sequence[str]) -> None:
    """Measure and write, or do one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of images")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each row and number")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help="rows to measure again")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.row:
        child(given.row, given.home)
        return
    with tempfile.TemporaryDirectory() as work:
        os.environ["SEGSHRINK_CACHE"] = str(Path(work) / "cache")
        watch = LoadWatch([])
        rows = measure(Path(work), given.counts, given.only or list(ROWS), given.rounds)
        busy = watch.stop().share
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "created": now,
        "segshrink": __version__,
        "machine": describe_machine(threads=1),
        "counts": list(given.counts),
        "rounds": given.rounds,
        "rows": rows,
    }
    if given.only:
        record = read_json(given.out / "growth.json")
        note = f"{now}, {given.rounds} rounds while other programs took {busy or 0:.0%} of the cores"
        record["rows"].update(rows)
        record["again"] = {**record.get("again", {}), **dict.fromkeys(rows, note)}
    write_json(given.out / "growth.json", record)
    write_text(given.out / "growth.md", to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
