"""Claim: a few figures, measured in minutes, say within a fifth what an archive, a cache and a training take.

    python benchmarks/scale.py                            # a quarter of an hour; results beside the scripts
    python benchmarks/scale.py --scenes 4 --side 256 --steps 12 --out /tmp/smoke

Each figure is taken from a small piece of work, what it says about a larger one is written down, then that is done:

- plan: what ``predict --plan`` says, for one process over all scenes;
- archive: megapixels a second that each of two processes predicts, both at work over the first scenes, for all of them;
- cache: a teacher's bytes for a megapixel of one scene, for all scenes;
- training: steps a second of the first steps, for all of a longer one;
- data: megabytes of crops a second that one loading process cuts from the store, which says how many a GPU needs.

Scenes are synthetic, one thread a process. From these the page computes what a thousand scenes of 10,000² pixels, and a
training on 64 GPUs, would take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from segshrink import (
    Recipe,
    SceneOptions,
    SceneStore,
    TeacherCache,
    __version__,
    build_model,
    estimate_scenes,
    export_onnx,
    load_dataset,
    open_dataset,
    open_teacher,
    write_scenes,
)
from segshrink.data import CropModule
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine
from segshrink.training import train

RESULTS = Path(__file__).resolve().parent / "results"
STUDENT, WITHIN, CROP, BATCH = "mobile", 0.2, 128, 8
# On paper: scenes, pixels of each, GPUs, steps of a training and crops of a step on each GPU.
ARCHIVE, PIXELS, GPUS, STEPS, EACH = 1_000, 10_000**2, 64, 100_000, 8


def predict(model: Path, scenes: Sequence[Path], out: Path, *, workers: int) -> float:
    """Predict scenes by so many processes of one thread; return the seconds beyond a process's start."""
    command = [sys.executable, "-m", "segshrink.cli", "predict", str(model), *map(str, scenes), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(shard: int) -> subprocess.Popen[bytes]:
        share = ["--threads", "1", "--shard", f"{shard}/{workers}", "--no-overlay"]
        return subprocess.Popen([*command, *share], env=environment, stdout=subprocess.DEVNULL)

    start = time.perf_counter()
    processes = [run(number) for number in range(1, workers + 1)]
    if any(process.wait() for process in processes):
        raise SystemExit("predict failed")
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    if run(1).wait():  # all done before: what remains is its start
        raise SystemExit("predict failed")
    return seconds - (time.perf_counter() - start)


def plan(model: Path, scenes: Sequence[Path], work: Path, side: int) -> dict[str, float]:
    """Compare seconds of one process over all scenes with what the plan says."""
    expected = estimate_scenes(model, scenes, work / "alone", SceneOptions(threads=1, overlay=False)).seconds
    measured = predict(model, scenes, work / "alone", workers=1)
    return {"figure": len(scenes) * side**2 / 1e6 / expected, "expected": expected, "measured": measured}


def archive(model: Path, scenes: Sequence[Path], work: Path, side: int) -> dict[str, float]:
    """Compare seconds of two processes over all scenes with what two over a few say.

    Both are at work when the figure is taken: cores of one processor share what the processor has.
    """
    few = scenes[: max(2, len(scenes) // 3)]
    rate = len(few) * side**2 / 1e6 / predict(model, few, work / "few", workers=2) / 2
    expected = len(scenes) * side**2 / 1e6 / rate / 2
    return {"figure": rate, "expected": expected, "measured": predict(model, scenes, work / "all", workers=2)}


def cache(work: Path, scenes: Any, side: int) -> dict[str, float]:
    """Compare a cache's bytes for all scenes with what one scene says."""
    network = build_model("unet", scenes.classes, options={"width": 8, "depth": 2})
    network.save(work / "teacher")
    teacher = open_teacher(work / "teacher", scenes.classes)
    sizes = []
    for name, samples in (("one", scenes.unlabeled[:1]), ("every", scenes.unlabeled)):
        folder = work / f"cache-{name}"
        TeacherCache(teacher, [SceneStore(samples, scenes.classes)], folder=folder)
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    megapixels = side**2 / 1e6
    return {
        "figure": sizes[0] / megapixels / 1e6,
        "expected": sizes[0] * len(scenes.unlabeled) / 1e6,
        "measured": sizes[1] / 1e6,
    }


def recipe_of(data: Path, steps: int) -> Recipe:
    """Return the recipe of a training of one epoch on one thread."""
    return Recipe.model_validate(
        {
            "data": load_dataset(data).model_dump(mode="json"),
            "crops": {"size": CROP, "batch_size": BATCH, "per_epoch": steps * BATCH, "workers": 0},
            "teacher": {"model": {"id": STUDENT}, "training": {"epochs": 1, "threads": 1}},
        }
    )


def seconds_of(work: Path, data: Path, steps: int) -> list[float]:
    """Train; return the moments when steps were done, from the first one on."""
    ends: list[float] = []

    def note(done: int, total: int, text: str) -> None:
        if text.startswith("epoch"):
            ends.append(time.perf_counter())

    train(recipe_of(data, steps), out=work / f"run-{steps}", role="teacher", progress=note)
    return [end - ends[0] for end in ends]


def training(work: Path, data: Path, steps: int) -> dict[str, float]:
    """Compare the seconds of a training's steps with what a short one says."""
    few = seconds_of(work, data, max(4, steps // 8))
    rate = (len(few) - 1) / few[-1]
    return {"figure": rate, "expected": (steps - 1) / rate, "measured": seconds_of(work, data, steps)[-1]}


def loading(data: Path, batches: int) -> dict[str, float]:
    """Compare the seconds that one process takes for batches with what a quarter of them says."""
    module = CropModule(open_dataset(load_dataset(data)), crops=recipe_of(data, 4 * batches).crops)
    module.setup("fit")
    stream = iter(module.train_dataloader())
    held = sum(value.nbytes for value in next(stream).values() if isinstance(value, torch.Tensor)) / 1e6
    taken = []
    for count in (batches, 3 * batches - 1):
        start = time.perf_counter()
        for _ in range(count):
            next(stream)
        taken.append(time.perf_counter() - start)
    rate = batches * held / taken[0]
    return {"figure": rate, "expected": (3 * batches - 1) * held / rate, "measured": taken[1], "batch": held}


def on_paper(record: dict[str, Any]) -> list[str]:
    """Carry the figures to an archive and a cluster."""
    rows = record["rows"]
    megapixels = ARCHIVE * PIXELS / 1e6
    hours = megapixels / rows["archive"]["figure"] / 3600
    answers = megapixels * rows["cache"]["figure"] / 1e6
    crops, batch = EACH * GPUS, rows["data"]["batch"] / BATCH
    needed = crops * batch / rows["data"]["figure"]
    return [
        f"- {ARCHIVE:,} scenes of {PIXELS:,} pixels: {megapixels:,.0f} Mpixel / {rows['archive']['figure']:.2f} = "
        f"{hours:,.0f} hours of one core of this machine with all at work, {hours / 64:,.1f} on 64 of them.",
        f"- A teacher's answers about them: {rows['cache']['figure']:.2f} MB for a megapixel, {answers:,.1f} TB.",
        f"- {STEPS:,} steps of {crops:,} crops of {CROP} pixels on {GPUS} GPUs, at s steps a second: {crops:,} × "
        f"{batch:.3f} MB × s, so {needed:,.1f} × s loading processes of {rows['data']['figure']:.0f} MB/s each in all.",
    ]


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine = record["machine"]
    units = {
        "plan": "Mpixel/s s",
        "archive": "Mpixel/s s",
        "cache": "MB/Mpixel MB",
        "training": "steps/s s",
        "data": "MB/s s",
    }
    lines = [
        "# What a larger job takes",
        "",
        f"Written by `python benchmarks/scale.py`, {record['created']}, segshrink {record['segshrink']}, "
        f"{machine['cpu']}, torch {machine['torch']}: {record['scenes']} scenes of {record['side']}² pixels, "
        f"{record['steps']} steps of {BATCH} crops of {CROP} pixels, one thread a process.",
        "",
        "| work | figure | expected | measured | of what was expected | within a fifth |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in record["rows"].items():
        figure, unit = units[name].split()
        share = row["measured"] / row["expected"]
        lines.append(
            f"| {name} | {row['figure']:.2f} {figure} | {row['expected']:.1f} {unit} | {row['measured']:.1f} {unit} | "
            f"{share:.2f} | {'yes' if abs(share - 1) <= WITHIN else 'no'} |"
        )
    return "\n".join([*lines, "", "## On paper", "", *on_paper(record), ""])


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["SEGSHRINK_CACHE"] = str(work / "store")
        data = write_scenes(work / "scenes", train=2, val=1, unlabeled=given.scenes, size=given.side)
        dataset = open_dataset(load_dataset(data))
        model = export_onnx(build_model(STUDENT, dataset.classes, options={}).eval(), work / "model.onnx")
        images = [sample.image for sample in dataset.unlabeled]
        record = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "segshrink": __version__,
            "machine": describe_machine(threads=1),
            "scenes": given.scenes,
            "side": given.side,
            "steps": given.steps,
            "rows": {
                "plan": plan(model, images, work, given.side),
                "archive": archive(model, images, work, given.side),
                "cache": cache(work, dataset, given.side),
                "training": training(work, data, given.steps),
                "data": loading(data, max(8, given.steps // 4)),
            },
        }
    write_json(given.out / "scale.json", record)
    write_text(given.out / "scale.md", to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
