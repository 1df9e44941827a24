r"""Claim: the doctor names a planted fault first, and raises no alarm about a sound teacher.

    python benchmarks/doctor.py --data ../shared/data --weights ../shared/weights --networks ../doctor-weights

Twelve faults (``doctor_networks.FAULTS``) are planted in three networks, one at a time, as a user's own code would hold
them, so that the doctor knows nothing about how pixels are scaled: the U-Net of ``configs/dubai.yaml`` and a U-Net
without normalization layers, both trained here on the Dubai scenes where ``--networks`` doesn't hold them yet, and
TensorFlow's DeepLab for Pascal VOC. Each remedy's line is put into the recipe, and the doctor asked again. Sound are
the three as they are, the average of their weights (or, for DeepLab, of its answers for mirror images), and one that is
half trained. Every examination is written at once, so that an interrupted run goes on; ``--only`` measures some.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from doctor_networks import FAULTS, dubai_recipe, train_plain, train_unet
from segshrink.config import Recipe, TeacherSource, load_dataset
from segshrink.doctor import Diagnosis, Patient, examine
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
# What is said about sound teachers.
_NO_ALARM = {"score", "certain", "uncertain", "unknown-classes"}
NETWORKS = {
    "unet": "U-Net on MobileNetV2, Dubai",
    "plain": "U-Net without normalization layers, Dubai",
    "deeplab": "DeepLabv3 (TFLite), Pascal VOC",
}


@dataclass(frozen=True)
class Case:
    """One examination: a network in one of its forms, with one fault or none."""

    network: str
    form: str
    path: Path
    fault: str = "none"

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.network}, {self.form}, {self.fault}"


def cases_of(networks: Path, weights: Path) -> Iterator[Case]:
    """Yield all examinations."""
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
    """Return the recipe that a network is examined with, by the network's name."""
    crops = {"size": 160, "workers": 0}
    descriptions = {
        "dubai": load_dataset(ROOT / "configs" / "data" / "dubai.yaml", [f"root={data / 'dubai'}"]),
        "voc": load_dataset(ROOT / "configs" / "data" / "voc.yaml", [f"root={data / 'VOCdevkit' / 'VOC2012'}"]),
    }
    dubai = Recipe.model_validate({"name": "doctor", "data": descriptions["dubai"], "crops": crops})
    voc = Recipe.model_validate({"name": "doctor", "data": descriptions["voc"], "crops": {**crops, "size": 256}})
    return {"unet": dubai, "plain": dubai, "deeplab": voc, "deeplab mirrored": voc}


def source_of(case: Case, recipe: Recipe) -> TeacherSource:
    """Return the teacher's entry in a recipe."""
    options = {
        "network": case.network,
        "path": str(case.path),
        "fault": case.fault,
        "classes": len(recipe.data.classes),
    }
    return TeacherSource(source="doctor_networks:planted", options=options)


def measured(case: Case, recipe: Recipe, images: int) -> dict[str, Any]:
    """Examine a teacher, and, where a fault was named, the recipe with the remedy's lines in it."""
    source = source_of(case, recipe)
    found = examine(Patient(recipe, (source,)), images=images)
    first = found.findings[0]
    told = {
        "network": case.network,
        "form": case.form,
        "fault": case.fault,
        "first": first.kind,
        "severity": first.severity,
        "others": [one.kind for one in found.findings[1:] if one.severity != "fine"],
        "seen": first.seen,
        "remedy": first.remedy,
        "mean_iou": score(found),
    }
    if case.fault == "none":
        alarms = {one.kind for one in found.findings if one.severity != "fine"} - _NO_ALARM
        return told | {"right": not alarms - ({"weak"} if case.form == "half trained" else set())}
    told["right"] = first.kind == FAULTS[case.fault]
    if first.remedy.startswith("distillation."):
        cured = applied(recipe, first.remedy)
        after = examine(Patient(cured, tuple(cured.distillation.teachers) or (source,)), images=images, brief=True)
        told |= {"mended_mean_iou": score(after), "healthy_after": not after.faults}
    return told


def score(found: Diagnosis) -> float | None:
    """Return the teacher's mean IoU on the crops, as it was used."""
    scores = [one.numbers["mean_iou"] for one in found.findings if "mean_iou" in one.numbers]
    return float(scores[0]) if scores else None


def applied(recipe: Recipe, remedy: str) -> Recipe:
    """Return the recipe with the lines of a remedy in it."""
    section: dict[str, Any] = {}
    for line in remedy.splitlines():
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
    planted, sound = ([row for row in rows if (row["fault"] == "none") is plain] for plain in (False, True))
    lines = [
        "# The doctor on planted faults",
        "",
        f"Written by `benchmarks/doctor.py`, {results['created']}, segshrink {results['segshrink']}, torch "
        f"{results['torch']}, ai-edge-litert {results['litert']}, {machine['cpu']}; seed {results['seed']}, "
        f"{results['images']} crops of 160 pixels (Dubai) and 256 pixels (VOC) of the validation scenes.",
        "",
        f"Right cause first: {sum(row['right'] for row in planted)} of {len(planted)}. Sound or merely weak teachers "
        f"without a false alarm: {sum(row['right'] for row in sound)} of {len(sound)}.",
        "",
        "mIoU is over the classes that the crops hold; *mended* is with the remedy's lines in the recipe.",
    ]
    for network, title in NETWORKS.items():
        lines += ["", f"## {title}", "", "| fault | named first | right | mIoU | mended |", "|---|---|---|---|---|"]
        for row in rows:
            if row["network"].split()[0] != network:
                continue
            fault = row["form"] if row["fault"] == "none" else row["fault"]
            cells = [fault, f"{row['first']} ({row['severity']})", "yes" if row["right"] else "**no**"]
            scores = [row["mean_iou"], row.get("mended_mean_iou")]
            lines.append("| " + " | ".join([*cells, *("" if one is None else f"{one:.3f}" for one in scores)]) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Train what is missing, examine what was asked for, and write the results after each examination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with dubai and VOCdevkit")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the ImageNet and the DeepLab weights")
    parser.add_argument("--networks", type=Path, required=True, help="where the trained networks are, or will be")
    parser.add_argument("--images", type=int, default=24, help="crops of an examination")
    parser.add_argument("--only", default="", help="measure the cases whose names begin so")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data, weights, networks = (path.resolve() for path in (given.data, given.weights, given.networks))
    if not given.only.startswith("deeplab"):
        prepare(data, weights, networks)
    file, by_network = RESULTS / "doctor.json", recipes(data)
    done = json.loads(file.read_text())["cases"] if file.exists() else {}
    for case in cases_of(networks, weights):
        if case.key in done or not case.key.startswith(given.only):
            continue
        done[case.key] = measured(case, by_network[case.network], given.images)
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
