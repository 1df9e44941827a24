"""Claim: a student that starts from the ready model ``aerial`` needs fewer labeled tiles.

    python benchmarks/starts.py --data ../shared/data --weights ../shared/weights --work /runs/starts

Buildings of ``hot-buildings``: the first tiles of place-5 in a drawn order are labeled, place-1 judges, every pixel.
The network is that of ``configs/dubai.yaml``, trained without a teacher for 296 steps of 8 crops, from random weights,
from an encoder trained on ImageNet, from the ready model's encoder, and from all of it; and that of ``segshrink init``,
on EfficientNet-Lite0, from random weights and from ImageNet's. Finished runs stay in ``--work``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from processor_results import RESULTS
from segshrink import RunFolder, load_recipe, train
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
LABELED, JUDGED = "place-5", "place-1"
NETWORK = "id: mobile, options: {blocks: 11, decoder_channels: [64, 48, 32]}, normalization: half"
LITE = (
    "id: mobile, options: {encoder: efficientnet_lite0, blocks: 9, decoder_channels: [64, 48, 32]}, normalization: half"
)
STARTS = {
    "random": f"{{{NETWORK}}}",
    "ImageNet's encoder": f"{{{NETWORK}, encoder_weights: WEIGHTS/mobilenet_v2_imagenet.safetensors}}",
    "aerial's encoder": f"{{{NETWORK}, encoder_weights: aerial}}",
    "aerial": "{start: aerial}",
    "random, on EfficientNet-Lite0": f"{{{LITE}}}",
    "ImageNet's encoder, EfficientNet-Lite0": (
        f"{{{LITE}, encoder_weights: WEIGHTS/efficientnet_lite0_imagenet.safetensors}}"
    ),
}


def labeled_tiles(data: Path, count: int) -> list[str]:
    """Return the first tiles of the labeled place in an order that is drawn once."""
    tiles = sorted((data / "hot-buildings" / LABELED / "images").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(tiles))
    return [f"{LABELED}/images/{tiles[number].name}" for number in order[:count]]


def run(given: argparse.Namespace, start: str, count: int) -> dict[str, Any]:
    """Train and judge once; a finished run is read."""
    folder = RunFolder(given.work / f"{count}-{list(STARTS).index(start)}")
    if not folder.has_evaluation:
        listed = ", ".join(labeled_tiles(given.data, count))
        overrides = [
            f"data={ROOT / 'configs' / 'data' / 'buildings.yaml'}",
            f"data.root={given.data / 'hot-buildings'}",
            f"data.split={{train: [{listed}], val: [{JUDGED}]}}",
            f"student.model={STARTS[start].replace('WEIGHTS', str(given.weights))}",
            f"student.training.epochs={given.epochs}",
            "student.training.threads=1",
        ]
        train(load_recipe(ROOT / "configs" / "dubai.yaml", overrides), out=folder.path, control=True, resume=True)
    scores, trained = folder.evaluation(), folder.run()
    print(count, start, scores.scores.mean_iou, scores.scores.iou, flush=True)
    return {
        "start": start,
        "labeled": count,
        "steps": trained.steps,
        "mean_iou": scores.scores.mean_iou,
        "building_iou": scores.scores.iou[1],
        "interval": scores.interval.mean_iou if scores.interval else None,
        "processor_seconds": trained.processor_seconds,
    }


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    counts = sorted({row["labeled"] for row in record["rows"]})
    found = {(row["start"], row["labeled"]): row["building_iou"] for row in record["rows"]}
    steps = record["rows"][0]["steps"]
    return "\n".join(
        [
            "# What a start is worth",
            "",
            f"Written by `benchmarks/starts.py`, which explains it, {record['created'][:10]}, on "
            f"{record['machine']['cpu']}. IoU of buildings in {JUDGED} after {steps} steps on tiles of {LABELED}, "
            "one seed.",
            "",
            f"| start | {' | '.join(f'{count} tiles' for count in counts)} |",
            f"| --- |{' ---: |' * len(counts)}",
            *(f"| {start} | {' | '.join(f'{found[start, count]:.3f}' for count in counts)} |" for start in STARTS),
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Train all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the encoders' weights")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10, 36], help="labeled tiles")
    parser.add_argument("--epochs", type=int, default=4, help="of 74 steps")
    given = parser.parse_args(arguments)
    given.data, given.weights = given.data.resolve(), given.weights.resolve()
    rows = [run(given, start, count) for count in given.counts for start in STARTS]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"created": now, "machine": describe_machine(), "rows": rows}
    write_json(RESULTS / "starts.json", record)
    write_text(RESULTS / "starts.md", to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
