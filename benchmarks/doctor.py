r"""Claim: the doctor names a planted fault first, and raises no alarm about a sound teacher.

    python benchmarks/doctor.py --data ../shared/data --weights ../shared/weights --networks ../doctor-weights

Twelve faults (``doctor_networks.FAULTS``) are planted in three networks, one at a time, as a user's own code would hold
them, so that the doctor knows nothing about how pixels are scaled: the U-Net of ``configs/dubai.yaml`` and a U-Net
without normalization layers, both trained here on the Dubai scenes where ``--networks`` doesn't hold them yet, and
TensorFlow's DeepLab for Pascal VOC. Each fix's lines are put into the recipe, and the doctor asked again. Sound are
the three as they are, the average of their weights (or, for DeepLab, of its answers for mirror images), and one that is
half trained. Every diagnosis is written at once, so that an interrupted run goes on; ``--only`` measures some.

Of networks that are sound or fed at a wrong size, the scores at other sizes stand beside: a doctor who names a size for
a small gain accuses sound ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from doctor_networks import FAULTS, dubai_recipe, train_plain, train_unet
from segshrink.config import Adapter, Recipe, TeacherSource, load_dataset
from segshrink.data import Dataset, open_dataset
from segshrink.doctor import Diagnosis, diagnose_recipe
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
# What is said about sound teachers.
_NO_ALARM = {"score", "certain", "uncertain", "unknown-classes"}
# Faults whose networks are scored at other sizes, and these sizes.
SIZED, SIZES = ("none", "half size", "double size"), (0.5, 0.75, 1.5, 2.0)
NETWORKS = {
    "unet": "U-Net on MobileNetV2, Dubai",
    "plain": "U-Net without normalization layers, Dubai",
    "deeplab": "DeepLabv3 (TFLite), Pascal VOC",
}


@dataclass(frozen=True)
class Case:
    """One diagnosis: a network in one of its forms, with one fault or none."""

    network: str
    form: str
    path: Path
    fault: str = "none"

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.network}, {self.form}, {self.fault}"


def cases_of(networks: Path, weights: Path) -> Iterator[Case]:
    """Yield all cases."""
    deeplab = weights / "deeplabv3_257_mv_gpu.tflite"
    paths = {
        "unet": networks / "unet" / "last",
        "plain": networks / "plain" / "last.safetensors",
        "deeplab": deeplab,
    }
    for network, path in paths.items():
        yield Case(network, "as trained", path)
        yield from (Case(network, "as trained", path, fault) for fault in FAULTS)
    yield Case("unet", "averaged", networks / "unet" / "averaged")
    yield Case("plain", "averaged", networks / "plain" / "averaged.safetensors")
    yield Case("deeplab mirrored", "averaged", deeplab)
    yield Case("plain", "half trained", networks / "plain" / "half.safetensors")


def recipes(data: Path) -> dict[str, Recipe]:
    """Return the recipe that a network is diagnosed with, by the first word of the network's name."""
    crops = {"size": 128, "workers": 0}
    descriptions = {
        "dubai": load_dataset(ROOT / "configs" / "data" / "dubai.yaml", [f"root={data / 'dubai'}"]),
        "voc": load_dataset(ROOT / "configs" / "data" / "voc.yaml", [f"root={data / 'VOCdevkit' / 'VOC2012'}"]),
    }
    dubai = Recipe.model_validate({"name": "doctor", "data": descriptions["dubai"], "crops": crops})
    voc = Recipe.model_validate({"name": "doctor", "data": descriptions["voc"], "crops": {**crops, "size": 256}})
    return {"unet": dubai, "plain": dubai, "deeplab": voc}


def source_of(case: Case, recipe: Recipe) -> TeacherSource:
    """Return the teacher's entry in a recipe."""
    options = {
        "network": case.network,
        "path": str(case.path),
        "fault": case.fault,
        "classes": len(recipe.data.classes),
    }
    # Probabilities that nobody calls logits are told from them by looking.
    adapter = Adapter(output="logits") if case.fault == "softmax twice" else None
    return TeacherSource(source="doctor_networks:planted", options=options, adapter=adapter)


def measured(case: Case, recipe: Recipe, dataset: Dataset, images: int) -> dict[str, Any]:
    """Diagnose a teacher, and, where a fault was named, the recipe with the lines of its fix."""
    source, started = source_of(case, recipe), time.process_time()
    diagnosis = diagnose_recipe(recipe, [source], dataset=dataset, images=images)
    seconds = time.process_time() - started
    first, *others = diagnosis.findings
    row = {
        "network": case.network,
        "form": case.form,
        "fault": case.fault,
        "first": first.kind,
        "severity": first.severity,
        "others": [finding.kind for finding in others if finding.severity != "fine"],
        "message": first.message,
        "fix": first.fix.replace(str(case.path), os.path.relpath(case.path, ROOT)),
        "mean_iou": score(diagnosis),
        "processor_seconds": round(seconds, 1),
    }
    if case.fault == "none":
        alarms = {finding.kind for finding in diagnosis.findings if finding.severity != "fine"} - _NO_ALARM
        return row | {"right": not alarms - ({"weak"} if case.form == "half trained" else set())}
    row["right"] = first.kind == FAULTS[case.fault]
    if first.fix.startswith("distillation."):
        fixed = applied(recipe, first.fix)
        teachers = fixed.distillation.teachers or [source]
        after = diagnose_recipe(fixed, teachers, dataset=dataset, images=images, brief=True)
        row |= {"fixed_mean_iou": score(after), "healthy_after": not after.faults}
    return row


def at_sizes(case: Case, recipe: Recipe, dataset: Dataset, images: int) -> dict[str, float | None]:
    """Return the teacher's mean IoU on the crops where they are enlarged by ``SIZES``, and its answers back."""
    found = {}
    for size in SIZES:
        sized = applied(recipe, f"distillation.scales: [{size}]")
        diagnosis = diagnose_recipe(sized, [source_of(case, recipe)], dataset=dataset, images=images, brief=True)
        found[f"{size:g}"] = score(diagnosis)
    return found


def score(diagnosis: Diagnosis) -> float | None:
    """Return the teacher's mean IoU on the crops, as it was used."""
    scores = [finding.numbers["mean_iou"] for finding in diagnosis.findings if "mean_iou" in finding.numbers]
    return float(scores[0]) if scores else None


def applied(recipe: Recipe, fix: str) -> Recipe:
    """Return the recipe with the lines of a fix in it."""
    section: dict[str, Any] = {}
    for line in fix.splitlines():
        if line.startswith("distillation."):
            key, _, value = line.partition(": ")
            section[key.removeprefix("distillation.")] = yaml.safe_load(value)
    return Recipe.model_validate({**recipe.model_dump(exclude_unset=True), "distillation": section})


def prepare(data: Path, weights: Path, networks: Path) -> None:
    """Train what isn't there yet."""
    recipe = dubai_recipe(data / "dubai", weights)
    if not (networks / "unet" / "averaged").is_dir():
        train_unet(recipe, networks / "unet")
    if not (networks / "plain" / "last.safetensors").exists():
        train_plain(recipe, networks / "plain")


def to_markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, rows = results["machine"], list(results["cases"].values())
    seconds = [row["processor_seconds"] for row in rows]
    planted, sound = ([row for row in rows if (row["fault"] == "none") is plain] for plain in (False, True))
    lines = [
        "# The doctor on planted faults",
        "",
        f"Written by `benchmarks/doctor.py`, {results['created']}, segshrink {results['segshrink']}, torch "
        f"{results['torch']}, ai-edge-litert {results['litert']}, {machine['cpu']}; seed {results['seed']}, "
        f"{results['images']} crops of 128 pixels (Dubai) and 256 pixels (VOC) of the validation scenes.",
        "",
        f"Right cause first: {sum(row['right'] for row in planted)} of {len(planted)}. Sound or merely weak teachers "
        f"without a false alarm: {sum(row['right'] for row in sound)} of {len(sound)}.",
        "",
        f"A diagnosis takes {statistics.median(seconds):.0f} s of one core (median; {max(seconds):.0f} s at most).",
        "mIoU is over the classes that the crops hold; *fixed* is with the fix's lines in the recipe.",
    ]
    for network, title in NETWORKS.items():
        lines += ["", f"## {title}", "", "| fault | named first | right | mIoU | fixed |", "|---|---|---|---|---|"]
        for row in rows:
            if row["network"].split()[0] != network:
                continue
            fault = row["form"] if row["fault"] == "none" else row["fault"]
            cells = [fault, f"{row['first']} ({row['severity']})", "yes" if row["right"] else "**no**"]
            scores = [row["mean_iou"], row.get("fixed_mean_iou")]
            cells += ["" if value is None else f"{value:.3f}" for value in scores]
            lines.append(f"| {' | '.join(cells)} |")
    titles = ["network", "fault", "mIoU", *(f"× {size:g}" for size in SIZES)]
    lines += ["", "## At other sizes", "", f"| {' | '.join(titles)} |", "|---|---|" + "---:|" * (len(titles) - 2)]
    for row in (row for row in rows if "at_sizes" in row):
        scores = ["" if value is None else f"{value:.3f}" for value in (row["mean_iou"], *row["at_sizes"].values())]
        lines.append(f"| {' | '.join([NETWORKS[row['network']], row['fault'], *scores])} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Train what is missing, diagnose what was asked for, and write the results after each diagnosis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with dubai and VOCdevkit")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the ImageNet and the DeepLab weights")
    parser.add_argument("--networks", type=Path, required=True, help="where the trained networks are, or will be")
    parser.add_argument("--images", type=int, default=24, help="crops of a diagnosis")
    parser.add_argument("--only", default="", help="measure the cases whose names begin so")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data, weights, networks = (path.resolve() for path in (given.data, given.weights, given.networks))
    if not given.only.startswith("deeplab"):
        prepare(data, weights, networks)
    file, by_network = RESULTS / "doctor.json", recipes(data)
    datasets: dict[str, Dataset] = {}
    done = json.loads(file.read_text())["cases"] if file.exists() else {}
    for case in cases_of(networks, weights):
        sized = case.form == "as trained" and case.fault in SIZED
        whole = case.key in done and (not sized or "at_sizes" in done[case.key])
        if whole or not case.key.startswith(given.only):
            continue
        recipe = by_network[case.network.split()[0]]
        if recipe.data.name not in datasets:
            datasets[recipe.data.name] = open_dataset(recipe.data)
        asked = (case, recipe, datasets[recipe.data.name], given.images)
        row = done[case.key] if case.key in done else measured(*asked)
        done[case.key] = row | ({"at_sizes": at_sizes(*asked)} if sized else {})
        print(case.key, "->", done[case.key]["first"], done[case.key]["right"], flush=True)
        results = {
            "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "segshrink": version("segshrink"),
            "torch": version("torch"),
            "litert": version("ai-edge-litert"),
            "machine": describe_machine(threads=1),
            "images": given.images,
            "seed": 0,
            "cases": done,
        }
        write_json(file, results)
        write_text(RESULTS / "doctor.md", to_markdown(results))


if __name__ == "__main__":
    main(sys.argv[1:])
