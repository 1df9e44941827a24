"""Claim: with the teacher cache a distillation step takes a third of a plain PyTorch loop's time, or a sixth.

    python benchmarks/teacher_cache.py                      # half an hour on two free cores; results beside the scripts
    python benchmarks/teacher_cache.py --steps 2 --warmup 1 --rounds 1 --threads 1 --out /tmp/smoke

Students: smp Unet with a MobileNetV2 (goal: 3×), and ``mobile``, under half a million parameters (goal: 6×). Teachers:
smp Unet with a ResNet-34 for both, and for ``mobile`` FCN-ResNet50 as well, since what the cache saves is the teacher.
Batches of 8 crops of 256 pixels, from synthetic scenes of 512 pixels.

- ``plain``: what people write. fp32, contiguous tensors, the allocator as it comes; crops and mirror images from arrays
  in memory, the teacher's forward at every step, cross-entropy and KL, AdamW.
- ``live``: ``segshrink distill`` as it comes (bf16 autocast where the processor has it, channels last, the command
  line's allocator settings; zoomed, turned and recolored crops from the store), the teacher's forward at every step.
- ``cached``: the same with ``distillation.teacher_cache: true``; the answers were computed before, as on every run but
  the first.

Every variant runs in a process of its own, by turns, so that a machine that slows down slows all of them. A step is
everything from one optimizer step to the next: data, forward, loss, backward, optimizer. Memory is the largest resident
set of the process, validation and checkpoints of a run included; beside it stands what of that came on top of Python
and the libraries, which differ: a run has Lightning, the plain loop has not. Processor time is the sum over threads; it
is what to look at where other programs were running.
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
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from processor_results import RESULTS, results_stem
from segshrink.allocator import TUNED_ALLOCATOR
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine, peak_memory_mb, resident_memory_mb

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from segshrink.config import Recipe

TEACHERS = {"unet-resnet34": "smp:Unet/resnet34", "fcn-resnet50": "torchvision:fcn_resnet50"}
STUDENTS = {"unet-mobilenet": "smp:Unet/mobilenet_v2", "mobile": "mobile"}
# Teacher and student -> how many times as fast as the plain loop a step should be.
GOALS = {
    ("unet-resnet34", "unet-mobilenet"): 3.0,
    ("unet-resnet34", "mobile"): 6.0,
    ("fcn-resnet50", "mobile"): 6.0,
}
VARIANTS = ("plain", "live", "cached")
ALPHA, TEMPERATURE = 0.5, 4.0
BATCH, CROP = 8, 256
MEASURES = ("step_ms", "cpu_ms", "peak_mb", "added_mb")
# Share of the processors, in percent, that other programs may take while results are measured that are kept.
MOST_BUSY = 10.0


class Clock:
    """Notes wall and processor time after every step, and the memory that the libraries took."""

    def __init__(self) -> None:
        self.libraries_mb = resident_memory_mb()
        self.ends: list[tuple[float, float]] = []

    def note(self) -> None:
        """A step has ended."""
        self.ends.append((time.perf_counter(), time.process_time()))


def plain_steps(work: Path, teacher_name: str, student_id: str, *, steps: int) -> Clock:
    """Train as one writes it by hand."""
    import segmentation_models_pytorch  # noqa: F401  # before the clock starts, as part of the libraries
    import torch
    from torch.nn import functional as F

    from segshrink import Normalization
    from segshrink.data import open_dataset
    from segshrink.models import build_model, load_model

    clock = Clock()
    recipe = recipe_of(work, student_id, steps=steps)
    classes = open_dataset(recipe.data).classes
    teacher = load_model(work / teacher_name).eval().requires_grad_(False)
    student = build_model(student_id, classes, normalization=Normalization.named("imagenet", 3)).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    for images, targets in plain_loader(recipe, steps=steps):
        with torch.no_grad():
            teacher_logits = teacher(images)
        student_logits = student(images)
        hard = F.cross_entropy(student_logits, targets, ignore_index=255)
        soft = F.kl_div(
            F.log_softmax(student_logits / TEMPERATURE, dim=1),
            F.softmax(teacher_logits / TEMPERATURE, dim=1),
            reduction="none",
        )
        loss = ALPHA * hard + (1 - ALPHA) * TEMPERATURE**2 * soft.sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        clock.note()
    return clock


def plain_loader(recipe: Recipe, *, steps: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Random crops, mirrored, from arrays in memory."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset

    from segshrink.data import SceneStore, open_dataset

    dataset = open_dataset(recipe.data)
    store = SceneStore(dataset.train, dataset.classes)
    scenes = [(np.array(store.image(index)), np.array(store.mask(index))) for index in range(len(store))]

    class RandomCrops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return steps * BATCH

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            rng = np.random.default_rng(index)
            image, mask = scenes[rng.integers(len(scenes))]
            row, col = (int(rng.integers(0, side - CROP + 1)) for side in mask.shape)
            window = slice(row, row + CROP), slice(col, col + CROP)
            pixels = torch.from_numpy(image[window]).permute(2, 0, 1).float()
            labels = torch.from_numpy(mask[window]).long()
            if rng.random() < 0.5:
                pixels, labels = pixels.flip(-1), labels.flip(-1)
            return pixels.contiguous(), labels

    return DataLoader(RandomCrops(), batch_size=BATCH)


def our_steps(
    work: Path, teacher_name: str, student_id: str, *, steps: int, cached: bool, accumulate: int = 1
) -> Clock:
    """Train with segshrink; a step may be made of several smaller batches."""
    import segmentation_models_pytorch  # noqa: F401  # before the clock starts, as part of the libraries

    from segshrink.data import open_dataset
    from segshrink.teachers import open_teacher
    from segshrink.training import train

    clock = Clock()
    recipe = recipe_of(work, student_id, steps=steps, cached=cached, accumulate=accumulate)
    teacher = partial(open_teacher, str(work / teacher_name), open_dataset(recipe.data).classes)

    def note(done: int, total: int, text: str) -> None:
        if text.startswith("epoch"):
            clock.note()

    with tempfile.TemporaryDirectory(dir=work) as out:
        train(recipe, out=Path(out) / "run", role="student", teacher=teacher, progress=note)
    return clock


def recipe_of(work: Path, student_id: str, *, steps: int, cached: bool = False, accumulate: int = 1) -> Recipe:
    """Return the recipe of one epoch of ``steps`` steps."""
    import torch

    from segshrink.config import Recipe, load_dataset

    return Recipe.model_validate(
        {
            "data": load_dataset(work / "scenes" / "dataset.yaml").model_dump(mode="json"),
            "crops": {"size": CROP, "batch_size": BATCH // accumulate, "per_epoch": steps * BATCH},
            "student": {
                "model": {"id": student_id, "normalization": "imagenet"},
                "training": {"epochs": 1, "threads": torch.get_num_threads(), "accumulate": accumulate},
            },
            "distillation": {"alpha": ALPHA, "temperature": TEMPERATURE, "teacher_cache": cached},
        }
    )


def prepare(work: Path) -> None:
    """Write scenes, teachers of random weights, and their answers; what they say matters neither to time nor memory."""
    import torch

    from segshrink.config import load_dataset
    from segshrink.data import open_dataset, write_scenes
    from segshrink.models import build_model

    torch.manual_seed(0)
    description = write_scenes(work / "scenes", train=12, val=2, unlabeled=0, size=512)
    for name, identity in TEACHERS.items():
        build_model(identity, open_dataset(load_dataset(description)).classes).save(work / name)
        our_steps(work, name, "mobile", steps=1, cached=True)


def child(job: str, work: Path, *, threads: int, steps: int) -> None:
    """Do one job in this process and print what was measured as a line of JSON."""
    import torch

    torch.set_num_threads(threads)
    if job == "prepare":
        prepare(work)
        return
    teacher, student, variant = job.split(":")
    if variant == "plain":
        clock = plain_steps(work, teacher, STUDENTS[student], steps=steps)
    else:
        clock = our_steps(work, teacher, STUDENTS[student], steps=steps, cached=variant == "cached")
    print(json.dumps({"ends": clock.ends, "peak_mb": peak_memory_mb(), "libraries_mb": clock.libraries_mb}))


def run_child(job: str, work: Path, *, threads: int, steps: int) -> dict[str, Any]:
    """Run a job in a fresh process, ours with the allocator settings of the command line."""
    environment = {**os.environ, "SEGSHRINK_CACHE": str(work / "cache"), "OMP_NUM_THREADS": str(threads)}
    if not job.endswith(":plain"):
        environment |= TUNED_ALLOCATOR
    arguments = ["--job", job, "--work", str(work), "--threads", str(threads), "--steps", str(steps)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = done.stdout.splitlines()
    return dict(json.loads(lines[-1])) if job != "prepare" else {}


def measure(work: Path, *, threads: int, steps: int, warmup: int, rounds: int) -> dict[str, Any]:
    """Run all variants by turns; return what each process took, by pair of networks, variant and round."""
    found: dict[str, Any] = {":".join(pair): {variant: [] for variant in VARIANTS} for pair in GOALS}
    run_child("prepare", work, threads=threads, steps=1)
    for number in range(rounds):
        for name in found:
            # Every other round goes backwards, so that a steady drift cancels.
            for variant in VARIANTS[:: 1 if number % 2 == 0 else -1]:
                measured = run_child(f"{name}:{variant}", work, threads=threads, steps=warmup + steps)
                pairs = list(pairwise(measured["ends"][warmup - 1 :]))
                entry = {
                    "step_ms": statistics.median(1000 * (later[0] - earlier[0]) for earlier, later in pairs),
                    "cpu_ms": statistics.median(1000 * (later[1] - earlier[1]) for earlier, later in pairs),
                    "peak_mb": measured["peak_mb"],
                    "added_mb": measured["peak_mb"] - measured["libraries_mb"],
                }
                found[name][variant].append(entry)
                shown = ", ".join(f"{measure} {value:.0f}" for measure, value in entry.items())
                print(f"round {number + 1}, {name}, {variant}: {shown}", flush=True)
    return found


def summarize(found: dict[str, Any]) -> dict[str, Any]:
    """Return medians over the rounds, and of each round's ratio to its plain loop the median and the range."""
    summary: dict[str, Any] = {}
    for name, variants in found.items():
        summary[name] = {}
        for variant, entries in variants.items():
            row: dict[str, Any] = {}
            for measured in MEASURES:
                ratios = [e[measured] / plain[measured] for e, plain in zip(entries, variants["plain"], strict=True)]
                row[measured] = statistics.median(entry[measured] for entry in entries)
                row[f"{measured}_share"] = statistics.median(ratios)
                row[f"{measured}_range"] = [min(ratios), max(ratios)]
            summary[name][variant] = row
    return summary


def as_markdown(record: dict[str, Any]) -> str:
    """Return the table that goes beside the numbers."""
    lines = [
        "# Step time and memory with the teacher cache",
        "",
        f"Batches of {BATCH} crops of {CROP} pixels, {record['threads']} threads, {record['rounds']} processes of each "
        f"kind of {record['steps']} steps, on {record['machine']['cpu']} with torch {record['machine']['torch']}, "
        f"{record['created'][:10]}; "
        f"other programs took {record['busy_percent']:.0f} % of the machine. Medians; in brackets the range over the "
        "processes. `python benchmarks/teacher_cache.py` measures it again and says what is what.",
        "",
        "| teacher | student | loop | ms a step | times as fast | processor ms | peak MB | of plain "
        "| beyond libraries, MB | of plain |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, variants in record["summary"].items():
        for variant, row in variants.items():
            low, high = row["step_ms_range"]
            lines.append(
                f"| {name.replace(':', ' | ')} | {variant} | {row['step_ms']:.0f} | {1 / row['step_ms_share']:.2f} "
                f"({1 / high:.2f}–{1 / low:.2f}) | {row['cpu_ms']:.0f} | {row['peak_mb']:.0f} | "
                f"{row['peak_mb_share']:.2f} | {row['added_mb']:.0f} | {row['added_mb_share']:.2f} |"
            )
    lines += ["", *(_verdict(name, variants["cached"]) for name, variants in record["summary"].items()), ""]
    return "\n".join(lines)


def _verdict(name: str, row: dict[str, Any]) -> str:
    teacher, student = name.split(":")
    goal = GOALS[teacher, student]
    speed = "reached" if 1 / row["step_ms_share"] >= goal else "missed"
    memory, added = ("reached" if row[f"{kind}_share"] <= 0.5 else "missed" for kind in ("peak_mb", "added_mb"))
    return (
        f"- {teacher} → {student}: {goal:g} times as fast is {speed}; half the memory is {memory} for the whole "
        f"process and {added} beyond Python and its libraries."
    )


def main(arguments: Sequence[str]) -> None:
    """Measure and write, or do one job of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each process")
    parser.add_argument("--warmup", type=int, default=4, help="steps before them, at least 1")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        child(given.job, given.work, threads=given.threads, steps=given.steps)
        return
    busy = psutil.cpu_percent(interval=3)
    if busy > MOST_BUSY and given.out == RESULTS:
        sys.exit(f"other programs take {busy:.0f} % of this machine; wait for them, or measure into another --out")
    settings = {name: getattr(given, name) for name in ("threads", "steps", "warmup", "rounds")}
    with tempfile.TemporaryDirectory() as work:
        found = measure(Path(work), **settings)
    machine = describe_machine(threads=given.threads)
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "busy_percent": busy,
        **settings,
        "summary": summarize(found),
        "processes": found,
    }
    stem = results_stem(given.out, "teacher_cache", machine["cpu"])
    write_json(Path(f"{stem}.json"), record)
    write_text(Path(f"{stem}.md"), as_markdown(record))
    print(as_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
