r"""Claim: a TFLite DeepLab scores through segshrink's teacher interface what a plain script scores with it.

    python benchmarks/deeplab.py --data ../shared/data/VOCdevkit/VOC2012 --weights ../shared/weights

Pascal VOC 2012, the 966 images of our ``train.txt`` (772) and ``val.txt`` (194), none of which the network was trained
on: 21 classes, every pixel at the image's own size, 255 ignored, one confusion matrix. The plain script's numbers are
62.9, 60.0 and, for all, 62.8 mIoU. The int8 network, which answers with label maps, is measured beside it. One thread;
results go to ``benchmarks/results/deeplab.*``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segshrink.config import TeacherSource, load_adapter, load_dataset
from segshrink.data import Dataset, Sample, open_dataset
from segshrink.evaluation import Confusion
from segshrink.files import write_json, write_text
from segshrink.imagery import read_image, read_mask
from segshrink.machine import describe_machine
from segshrink.teachers import Teacher, open_teacher

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
ADAPTER = ROOT / "configs" / "teachers" / "deeplab_voc.yaml"
FLOAT, INT8 = "deeplabv3_257_mv_gpu.tflite", "deeplabv3_mnv2_pascal_quant.tflite"


def teachers(weights: Path, dataset: Dataset) -> dict[str, Teacher]:
    """Open both networks with the adapter that segshrink ships; the int8 one takes pixels as they are."""
    adapter = load_adapter(ADAPTER)
    adapters = {FLOAT: adapter, INT8: adapter.model_copy(update={"mean": 0.0, "std": 1.0})}
    return {
        file: open_teacher(TeacherSource(source=f"tflite:{weights / file}", adapter=adapters[file]), dataset.classes)
        for file in adapters
    }


def measure(teacher: Teacher, samples: Sequence[Sample], dataset: Dataset) -> tuple[Confusion, float]:
    """Return the confusion matrix of some images, and the processor seconds that the teacher took for one."""
    confusion, spent = Confusion(len(dataset.classes)), 0.0
    for sample in samples:
        assert sample.mask is not None  # noqa: S101  # the split has labeled images only
        image = read_image(sample.image)
        start = time.process_time()
        logits = teacher.scene_logits(image, sample.name)
        spent += time.process_time() - start
        confusion.update(logits.argmax(0).astype(np.uint8), read_mask(sample.mask, dataset.classes))
    return confusion, spent / len(samples)


def record(parts: dict[str, Confusion], seconds: float, dataset: Dataset) -> dict[str, Any]:
    """Return the scores of the lists and of all their images together."""
    whole = Confusion(len(dataset.classes))
    for part in parts.values():
        whole.merge(part)
    scores = {name: part.scores() for name, part in {**parts, "all": whole}.items()}
    return {
        "mean_iou": {name: score.mean_iou for name, score in scores.items()},
        "accuracy": {name: score.accuracy for name, score in scores.items()},
        "iou": dict(zip(dataset.classes.names, scores["all"].iou.tolist(), strict=True)),
        "seconds_per_image": seconds,
    }


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, images = results["machine"], results["images"]
    lines = [
        "# DeepLab as a teacher",
        "",
        f"Written by `benchmarks/deeplab.py`, {results['created']}, segshrink {results['segshrink']}, ai-edge-litert "
        f"{results['litert']}, {machine['cpu']}, one thread. Pascal VOC 2012, {images['all']} images "
        f"({images['train']} of `train.txt`, {images['val']} of `val.txt`), every pixel at the image's own size, "
        "21 classes, one confusion matrix. The plain script scored 62.8 with the float network (62.9 and 60.0).",
        "",
        "| network | mIoU, all | train.txt | val.txt | pixel accuracy | ms per image |",
        "|---|---|---|---|---|---|",
    ]
    for file, found in results["networks"].items():
        percent = [f"{100 * found['mean_iou'][name]:.2f}" for name in ("all", "train", "val")]
        cells = [f"`{file}`", *percent, f"{100 * found['accuracy']['all']:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{1000 * found['seconds_per_image']:.0f}"]) + " |")
    lines += [
        "",
        "Letterboxed in the upper left corner on gray 127, scaled as Pillow's `BILINEAR` does. What else was tried by "
        "hand with the float network on `val.txt`: the image in the middle of the letterbox, 56.4; bilinear "
        "interpolation without smoothing, 60.9 (in the middle 57.2).",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure both networks on both lists and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder VOC2012 of the VOCdevkit layout")
    parser.add_argument("--weights", type=Path, required=True, help=f"folder of {FLOAT} and {INT8}")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset = open_dataset(load_dataset(ROOT / "configs" / "data" / "voc.yaml", [f"root={given.data}"]))
    lists = {"train": dataset.train, "val": dataset.val}
    networks = {}
    for file, teacher in teachers(given.weights, dataset).items():
        measured = {name: measure(teacher, samples, dataset) for name, samples in lists.items()}
        total = sum(seconds * len(lists[name]) for name, (_, seconds) in measured.items())
        parts = {name: confusion for name, (confusion, _) in measured.items()}
        networks[file] = record(parts, total / sum(map(len, lists.values())), dataset)
        print(file, {name: round(100 * value, 2) for name, value in networks[file]["mean_iou"].items()})
    results = {
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "segshrink": version("segshrink"),
        "litert": version("ai-edge-litert"),
        "machine": describe_machine(threads=1),
        "images": {**{name: len(samples) for name, samples in lists.items()}, "all": sum(map(len, lists.values()))},
        "networks": networks,
    }
    write_json(RESULTS / "deeplab.json", results)
    write_text(RESULTS / "deeplab.md", to_markdown(results))


if __name__ == "__main__":
    main(sys.argv[1:])
