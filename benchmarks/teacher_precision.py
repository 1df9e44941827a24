"""Claim: on a CPU a teacher answers two to four times sooner in int8 through OpenVINO, and says nearly the same.

    python benchmarks/teacher_precision.py --teacher RUN   # seven minutes on two free cores; results beside the scripts

- ``accuracy``: of the run's model, in its own runtime (bf16 where the processor computes in it) and through OpenVINO in
  bf16 and int8: mIoU on its validation scenes, share of pixels that keep the likeliest class, and mean KL from its own
  distribution. Ranges are observed on 32 tiles of training images, as a training does it.
- ``time``: milliseconds for a tile of 512 pixels, as a teacher cache is computed, and for 8 crops of 256 pixels inside
  autocast, as a training without a cache asks, by turns. Besides the run's model, two teachers of random weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from segshrink.allocator import restart_with_tuned_allocator
from segshrink.config import Recipe
from segshrink.data import Dataset, SceneStore, calibration_tiles, open_dataset
from segshrink.evaluation import Confusion
from segshrink.files import write_json, write_text
from segshrink.machine import available_cores, describe_machine, package_versions
from segshrink.models import build_model
from segshrink.prediction.runtimes.torch import computes_in_bf16
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, TorchTeacher, open_teacher
from segshrink.teachers.low_precision import in_precision

RESULTS = Path(__file__).resolve().parent / "results"
RANDOM = ("smp:Unet/resnet34", "torchvision:fcn_resnet50")
PRECISIONS: tuple[Literal["own", "bf16", "int8"], ...] = ("own", "bf16", "int8")
TURNS, BATCH, SIZE = 5, 8, 256


def accuracy(teacher: Teacher, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Judge a teacher in all precisions on the validation scenes of a recipe."""
    dataset = open_dataset(recipe.data)
    store = SceneStore(dataset.val, dataset.classes)
    teachers = in_all_precisions(teacher, dataset)
    judged: dict[str, dict[str, Any]] = {
        how: {"confusion": Confusion(len(dataset.classes)), "kept": [], "divergence": []} for how in PRECISIONS
    }
    for number in range(len(store)):
        image, name = np.asarray(store.image(number)), store.samples[number].name
        answers = {how: torch.from_numpy(each.scene_logits(image, name)) for how, each in teachers.items()}
        reference = F.log_softmax(answers["own"].double(), dim=0)
        for how, logits in answers.items():
            likeliest = logits.argmax(dim=0)
            judged[how]["confusion"].update(likeliest.numpy(), store.mask(number))
            judged[how]["kept"].append((likeliest == answers["own"].argmax(dim=0)).double().mean().item())
            gap = reference - F.log_softmax(logits.double(), dim=0)
            judged[how]["divergence"].append((reference.exp() * gap).sum(dim=0).mean().item())
    return {
        how: {
            "mean_iou": values["confusion"].scores().mean_iou,
            "same_class": statistics.fmean(values["kept"]),
            "divergence": statistics.fmean(values["divergence"]),
        }
        for how, values in judged.items()
    }


def in_all_precisions(teacher: Teacher, dataset: Dataset) -> dict[str, Teacher]:
    """Return a teacher by precision; one that can't be run so here stays as it is, and says so."""
    return {how: teacher if how == "own" else in_precision(teacher, how, dataset) for how in PRECISIONS}


def times(teacher: Teacher, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Return milliseconds by question and precision, medians of turns."""
    dataset = open_dataset(recipe.data)
    teachers = in_all_precisions(teacher, dataset)
    tile = calibration_tiles(dataset, count=1)[0]
    height, width = tile.shape[1:]
    scene = np.ascontiguousarray(tile.transpose(1, 2, 0))
    crops = torch.from_numpy(np.ascontiguousarray(tile[:, :SIZE, :SIZE]))[None].expand(BATCH, -1, -1, -1).contiguous()

    def ask_about_crops(asked: Teacher) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bf16(torch.device("cpu"))):
            asked.logits(crops)

    questions: dict[str, Callable[[Teacher], object]] = {
        f"a tile of {height} x {width} pixels": lambda asked: asked.scene_logits(scene, "tile"),
        f"{BATCH} crops of {SIZE} pixels": ask_about_crops,
    }
    return {question: by_turns(teachers, ask) for question, ask in questions.items()}


def by_turns(teachers: dict[str, Teacher], ask: Callable[[Teacher], object]) -> dict[str, float]:
    """Return the median milliseconds that each teacher takes."""
    taken: dict[str, list[float]] = {how: [] for how in teachers}
    for _ in range(TURNS):
        for how, asked in teachers.items():
            ask(asked)  # others have emptied the caches
            begun = time.perf_counter()
            ask(asked)
            taken[how].append(1000 * (time.perf_counter() - begun))
    return {how: statistics.median(values) for how, values in taken.items()}


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        "# Teachers in lower precision",
        "",
        f"Written by `benchmarks/teacher_precision.py`, {results['created']}, {machine['cpu']}, {machine['threads']} "
        f"threads, torch {machine['torch']}, OpenVINO {versions['openvino']}, NNCF {versions['nncf']}, Python "
        f'{machine["python"]}. "own" is PyTorch in bf16 where the processor computes in it.',
        "",
        f"`{results['model']}`, trained, on the validation scenes of {results['data']}:",
        "",
        "| precision | mIoU | pixels that keep their class | KL from its own answers |",
        "|---|---|---|---|",
    ]
    for how, judged in results["accuracy"].items():
        kept = f"{100 * judged['same_class']:.1f} %"
        lines.append(f"| {how} | {judged['mean_iou']:.4f} | {kept} | {judged['divergence']:.4f} |")
    lines += ["", "| teacher | asked about | own | bf16 | int8 | quicker by |", "|---|---|---|---|---|---|"]
    for name, by_question in results["times"].items():
        for question, taken in by_question.items():
            cells = " | ".join(f"{taken[how]:.0f} ms" for how in PRECISIONS)
            lines.append(f"| `{name}` | {question} | {cells} | {taken['own'] / taken['int8']:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="run folder of a trained teacher")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    recipe = RunFolder(given.teacher).recipe()
    dataset = open_dataset(recipe.data)
    trained = open_teacher(given.teacher, dataset.classes, bands=dataset.bands)
    assert isinstance(trained, TorchTeacher)  # noqa: S101  # a run folder is a network of torch
    model = recipe.teacher.model.id if recipe.teacher else given.teacher.name
    teachers = {model: trained}
    for name in RANDOM:
        torch.manual_seed(0)
        teachers[name] = TorchTeacher(build_model(name, dataset.classes, bands=dataset.bands).eval(), name=name)
    results: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(threads=given.threads),
        "versions": package_versions("openvino", "nncf"),
        "model": model,
        "data": recipe.data.name,
        "accuracy": accuracy(trained, recipe),
        "times": {},
    }
    for name, teacher in teachers.items():
        results["times"][name] = times(teacher, recipe)
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "teacher_precision.json", results)
    write_text(given.out / "teacher_precision.md", to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
