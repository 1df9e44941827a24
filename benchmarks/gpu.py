"""Claim: a GPU computes what the processor does, and waits for data less than a twentieth of the time.

    python benchmarks/gpu.py                              # at most eight minutes; results beside the scripts
    python benchmarks/gpu.py --device cpu --steps 2 --scenes 2 --crop 64 --out /tmp/smoke

- correctness: logits of a trained network on both devices in float32, and the loss of its first step.
- training: a teacher (smp Unet with a ResNet-34), and the student ``mobile`` with it asked at every step, or once.
  Steps a second, the largest memory of the device, and the share of the time between the end of a step's work and the
  moment when the next batch lies on the device.
- evaluation: megapixels a second of whole scenes, the reading of them included.

Batches of 16 crops from synthetic scenes of 1,024 pixels; crops come from as many processes as a recipe takes when it
doesn't say.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
TEACHER, STUDENT, BATCH, WARMUP = "smp:Unet/resnet34", "mobile", 16, 2
WAITING, DIFFERENCE = 0.05, 1e-3


def clock() -> Any:
    """Return a callback that notes when batches begin and when all work of a step is done."""
    import lightning
    import torch

    class Clock(lightning.Callback):
        def __init__(self) -> None:
            self.begun: list[float] = []
            self.ended: list[float] = []

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.begun.append(time.perf_counter())

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ended.append(time.perf_counter())

        def taken(self) -> dict[str, float]:
            """Steps a second, and the share of the time that passes between steps."""
            ends = self.ended[WARMUP - 1 :]
            waits = [begun - ended for begun, ended in zip(self.begun[WARMUP:], ends, strict=False)]
            seconds = statistics.median(later - earlier for earlier, later in pairwise(ends))
            return {"steps_a_second": 1 / seconds, "waiting": statistics.median(waits) / seconds}

    return Clock()


def recipe_of(data: Path, *, steps: int, crop: int, cached: bool = False) -> Any:
    """Return the recipe of one epoch."""
    from segshrink import Recipe, load_dataset

    training = {"epochs": 1}
    return Recipe.model_validate(
        {
            "data": load_dataset(data).model_dump(mode="json"),
            "crops": {"size": crop, "batch_size": BATCH, "per_epoch": (WARMUP + steps) * BATCH},
            "teacher": {"model": {"id": TEACHER, "normalization": "imagenet"}, "training": training},
            "student": {"model": {"id": STUDENT, "normalization": "imagenet"}, "training": training},
            "distillation": {"teacher_cache": cached},
        }
    )


def trainings(work: Path, data: Path, *, steps: int, crop: int) -> dict[str, dict[str, float]]:
    """Train a teacher, and a student with it live and cached; return what each took."""
    from segshrink import RunFolder, open_dataset, open_teacher
    from segshrink.training import train

    found = {}
    classes = open_dataset(recipe_of(data, steps=steps, crop=crop).data).classes
    for name in ("teacher", "student, live teacher", "student, cached teacher"):
        noted, out = clock(), work / name
        taught: dict[str, Any] = {"role": "teacher"}
        if name != "teacher":
            taught = {"role": "student", "teacher": partial(open_teacher, str(work / "teacher"), classes)}
        recipe = recipe_of(data, steps=steps, crop=crop, cached="cached" in name)
        train(recipe, out=out, callbacks=[noted], **taught)
        found[name] = {**noted.taken(), "gpu_mb": RunFolder(out).run().gpu_peak_memory_mb or 0.0}
        print(name, found[name], flush=True)
    return found


def difference(model: Any, device: str) -> dict[str, float]:
    """Compare a network's logits, and a loss, between the processor and the device, in float32."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    images = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8)
    target = torch.randint(0, 2, (4, 256, 256))
    answers = []
    for place in ("cpu", device):
        network = model.to(place).eval()
        with torch.no_grad():
            logits = network(images.to(place))
            answers.append((logits.softmax(1).cpu(), float(F.cross_entropy(logits, target.to(place)))))
    (ours, loss), (theirs, other) = answers
    return {
        "largest difference of a probability": float((ours - theirs).abs().max()),
        "pixels of the same class": float((ours.argmax(1) == theirs.argmax(1)).float().mean()),
        "difference of a loss": abs(loss - other),
    }


def evaluation(work: Path, data: Path) -> float:
    """Return megapixels a second of scoring the student on all validation scenes, read before by another pass."""
    from segshrink import evaluate, load_dataset, load_model, open_dataset

    dataset, model = open_dataset(load_dataset(data)), load_model(work / "student, cached teacher")
    evaluate(model, dataset)
    start = time.perf_counter()
    result = evaluate(model, dataset)
    return sum(map(sum, result.confusion)) / 1e6 / (time.perf_counter() - start)


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, goal = record["machine"], f"{WAITING:.0%}"
    rows = [
        f"| {name} | {row['steps_a_second']:.2f} | {row['waiting']:.1%} | {row['gpu_mb']:.0f} |"
        for name, row in record["trainings"].items()
    ]
    waits = max(row["waiting"] for row in record["trainings"].values())
    differs = record["correctness"]["largest difference of a probability"]
    lines = [
        "# On a GPU",
        "",
        f"Written by `python benchmarks/gpu.py`, {record['created']}, segshrink {record['segshrink']}, on "
        f"{record['device']} beside {machine['cpu']}, torch {machine['torch']}; batches of {BATCH} crops of "
        f"{record['crop']} pixels, {record['steps']} steps.",
        "",
        "| training | steps a second | waiting for data | MB of the GPU |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        f"- Evaluation: {record['evaluation']:.1f} Mpixel/s.",
        *(f"- Against the processor, {name}: {value:.2g}." for name, value in record["correctness"].items()),
        f"- Waits for data less than {goal} of the time: {'reached' if waits < WAITING else 'missed'}; computes what "
        f"the processor does: {'yes' if differs < DIFFERENCE else 'no'}.",
    ]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=60, help="measured steps of each training")
    parser.add_argument("--scenes", type=int, default=12, help="training scenes")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    from segshrink import __version__, load_model
    from segshrink.data import write_scenes
    from segshrink.files import write_json, write_text
    from segshrink.machine import describe_machine

    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; --device cpu runs the same on the processor")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["SEGSHRINK_CACHE"] = str(work / "cache")
        data = write_scenes(work / "scenes", train=given.scenes, val=2, unlabeled=0, size=4 * given.crop)
        found = trainings(work, data, steps=given.steps, crop=given.crop)
        record = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "segshrink": __version__,
            "machine": describe_machine(threads=torch.get_num_threads()),
            "device": torch.cuda.get_device_name() if given.device == "cuda" else "the processor alone",
            "steps": given.steps,
            "crop": given.crop,
            "trainings": found,
            "correctness": difference(load_model(work / "teacher"), given.device),
            "evaluation": evaluation(work, data),
        }
    write_json(given.out / "gpu.json", record)
    write_text(given.out / "gpu.md", to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
