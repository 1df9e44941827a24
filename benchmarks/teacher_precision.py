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
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from segshrink.config import Crops, Distillation, Recipe
from segshrink.data import CropModule, SceneStore, calibration_tiles, open_dataset
from segshrink.evaluation import Confusion
from segshrink.files import write_json, write_text
from segshrink.machine import available_cores, describe_machine, package_versions, restart_with_tuned_allocator
from segshrink.models import build_model
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, TorchTeacher, open_teacher
from segshrink.teachers.low_precision import OpenVinoTeacher
from segshrink.training.teacher_precision import TILES, quickest_teacher

RESULTS = Path(__file__).resolve().parent / "results"
RANDOM = ("smp:Unet/resnet34", "torchvision:fcn_resnet50")
PRECISIONS = ("own", "bf16", "int8")


def accuracy(teacher: Teacher, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Judge a teacher in all precisions on the validation scenes of a recipe."""
    dataset = open_dataset(recipe.data)
    store = SceneStore(dataset.val, dataset.classes)
    tiles = calibration_tiles(dataset, count=TILES)
    lowered = {how: OpenVinoTeacher(teacher, how, tiles) for how in ("bf16", "int8")}
    judged: dict[str, dict[str, Any]] = {
        how: {"confusion": Confusion(len(dataset.classes)), "kept": [], "divergence": []} for how in PRECISIONS
    }
    for number in range(len(store)):
        image, name = np.asarray(store.image(number)), store.samples[number].name
        answers = {how: torch.from_numpy(one.scene_logits(image, name)) for how, one in lowered.items()}
        answers["own"] = torch.from_numpy(teacher.scene_logits(image, name))
        own = F.log_softmax(answers["own"].double(), dim=0)
        for how, logits in answers.items():
            likeliest = logits.argmax(dim=0)
            judged[how]["confusion"].update(likeliest.numpy(), store.mask(number))
            judged[how]["kept"].append((likeliest == answers["own"].argmax(dim=0)).double().mean().item())
            gap = own - F.log_softmax(logits.double(), dim=0)
            judged[how]["divergence"].append((own.exp() * gap).sum(dim=0).mean().item())
    return {
        how: {
            "mean_iou": found["confusion"].scores().mean_iou,
            "same_class": statistics.fmean(found["kept"]),
            "divergence": statistics.fmean(found["divergence"]),
        }
        for how, found in judged.items()
    }


def times(teacher: Teacher, recipe: Recipe, folder: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds by question and precision."""
    found = {}
    for cached in (True, False):
        section = Distillation(precision="int8", teacher_cache=cached)
        asking = recipe.model_copy(update={"distillation": section, "crops": Crops(size=256, batch_size=8)})
        data = CropModule(open_dataset(recipe.data), crops=asking.crops, folder=folder)
        data.setup("fit")
        assert asking.student is not None  # noqa: S101  # a run of a teacher has one, as its recipe distils
        _, (choice,) = quickest_teacher(asking, asking.student, teacher, data)
        found[choice.question] = dict(choice.milliseconds)
    return found


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
    for how, found in results["accuracy"].items():
        kept = f"{100 * found['same_class']:.1f} %"
        lines.append(f"| {how} | {found['mean_iou']:.4f} | {kept} | {found['divergence']:.4f} |")
    lines += ["", "| teacher | asked about | own | bf16 | int8 | quicker by |", "|---|---|---|---|---|---|"]
    for name, by_question in results["times"].items():
        for question, found in by_question.items():
            cells = " | ".join(f"{found[how]:.0f} ms" for how in PRECISIONS)
            lines.append(f"| `{name}` | {question} | {cells} | {found['own'] / found['int8']:.1f} |")
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
        with tempfile.TemporaryDirectory() as folder:
            results["times"][name] = times(teacher, recipe, Path(folder))
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "teacher_precision.json", results)
    write_text(given.out / "teacher_precision.md", to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
