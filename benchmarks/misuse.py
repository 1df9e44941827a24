"""Claim: a model that knows its training images names what was done to a scene, and is silent about sound ones.

    python benchmarks/misuse.py                  # ten minutes on one free core; results beside the scripts
    python benchmarks/misuse.py --data FOLDER    # data sets elsewhere than ../shared/data or $SEGSHRINK_DATA

Four kinds of imagery, each with scenes of ground that its training images don't show:

- Dubai: training images of tiles 4, 6, 7 and 8; scenes of 2 × 2 neighboring images of tiles 2 and 5.
- Zanzibar and Nairobi (hot-buildings, 0.07 m): training tiles of one district; scenes of 3 × 3 tiles of another, 2 km
  and more away.
- Banepa (aerial-unlabeled): training tiles of the west; scenes of 2 × 2 tiles of the east, 600 m apart and more.

Each fault is made on up to ten scenes of each kind, and the model gets the pixels. "Near infrared for red" is computed
from the colors, since no band of it is at hand: vegetation bright, water dark. "Twice too fine" is a scene enlarged by
cubic interpolation; beside it stands a scene as it is for a model of images of half its size. "Another kind of ground"
are photographs of Pascal VOC. Sound scenes are all there are.

The time is the processor's, of all that looking costs while a scene is predicted, as a share of what predicting it
takes: with the program's start (one scene a command) and without it (the further scenes of an archive). The network is
``mobile`` at half its width, 0.23 GFLOP for a tile of 256 × 256, as ONNX in 32-bit floats.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scene import make_scene
from segshrink import ClassMap, Normalization, Predictor, build_model, export_onnx, predict_scenes
from segshrink.data import CLASSES
from segshrink.files import write_json, write_text
from segshrink.imagery.image_features import ImageSample, image_distribution
from segshrink.machine import describe_machine
from segshrink.model_description import ModelDescription
from segshrink.prediction.misuse import find_misuse
from segshrink.prediction.scenes import predict as predicting

ROOT = Path(__file__).resolve().parents[1]
TEN = 10
SOUND = "none"
GOALS = {"named": 0.9, "accused": 0.02, "time": 0.02}

Pixels = NDArray[Any]


def read(path: Path) -> Pixels:
    """Read an image as (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def together(rows: Sequence[Sequence[Path]]) -> Pixels:
    """Put neighboring images together, which may differ in size by a pixel."""
    images = [[read(path) for path in row] for row in rows]
    height = [min(len(image) for image in row) for row in images]
    width = [min(row[col].shape[1] for row in images) for col in range(len(images[0]))]
    return np.concatenate(
        [
            np.concatenate([image[:tall, :wide] for image, wide in zip(row, width, strict=True)], axis=1)
            for row, tall in zip(images, height, strict=True)
        ]
    )


def shrunk(image: Pixels, factor: int) -> Pixels:
    """Average squares of pixels."""
    height, width = (side // factor * factor for side in image.shape[:2])
    squares = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return np.asarray(np.rint(squares.mean(axis=(1, 3), dtype=np.float32)), np.uint8)


def enlarged(image: Pixels) -> Pixels:
    """Double the size by cubic interpolation."""
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC))


def infrared(image: Pixels) -> Pixels:
    """Put something like near infrared in the place of red: bright where it is green, dark where it is blue."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    total = red + green + blue + 1
    vegetation = np.clip((2 * green - red - blue) / total / 0.15, 0, 1)
    water = np.clip((blue - red) / total / 0.1, 0, 1) * (1 - vegetation)
    near = 1.1 * red + vegetation * np.clip(total * 110 / 270, 30, 140) - 0.7 * red * water
    return np.stack([np.clip(near, 0, 255), green, blue], axis=-1).astype(np.uint8)


def compressed(image: Pixels) -> Pixels:
    """Save as JPEG of quality 10."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    return read(file)  # type: ignore[arg-type]


def stretched(image: Pixels) -> Pixels:
    """Stretch each band's 2nd to 98th percentile over all bytes, as viewers do."""
    low, high = np.percentile(image, (2, 98), axis=(0, 1))
    return np.asarray(np.rint(np.clip((image - low) * 255 / (high - low), 0, 255)), np.uint8)


def equalized(image: Pixels) -> Pixels:
    """Equalize each band's histogram."""
    counts = [np.bincount(band.ravel(), minlength=256).cumsum() for band in np.moveaxis(image, -1, 0)]
    tables = [np.rint(255 * count / count[-1]).astype(np.uint8) for count in counts]
    return np.stack([table[image[..., band]] for band, table in enumerate(tables)], axis=-1)


def half_empty(image: Pixels) -> Pixels:
    """Blacken the right half."""
    return np.where(np.arange(image.shape[1])[:, np.newaxis] < image.shape[1] // 2, image, 0).astype(np.uint8)


def padded(image: Pixels) -> Pixels:
    """Put a white border around, of a fifth of the sides."""
    rows, cols = (side // 5 for side in image.shape[:2])
    return np.pad(image, ((rows, rows), (cols, cols), (0, 0)), constant_values=255)


# Fault → the cause that is right, and how it is made.
FAULTS: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "red and blue exchanged": ("exchanged", lambda image: image[..., ::-1]),
    "16 bits unscaled": ("unscaled", lambda image: image.astype(np.uint16) * 16),
    "12 bits scaled as if they were 16": ("unscaled", lambda image: image // 16),
    "8 bits as 0 to 1": ("unit", lambda image: image.astype(np.float32) / 255),
    "four times too coarse": ("coarse", lambda image: shrunk(image, 4)),
    "twice too fine": ("fine", enlarged),
    "near infrared for red": ("infrared", infrared),
    "inverted": ("inverted", lambda image: 255 - image),
    "blurred (Gaussian, 3 pixels)": ("blurred", lambda image: ndimage.gaussian_filter(image, (3, 3, 0))),
    "heavily compressed (JPEG 10)": ("compressed", compressed),
    "histogram stretched (2 to 98 %)": ("stretched", stretched),
    "histogram equalized": ("stretched", equalized),
    "gray": ("gray", lambda image: np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)),
    "half empty": ("empty", half_empty),
    "padded": ("empty", padded),
}
OTHER, FINER = "another kind of ground (photographs)", "twice as fine as half-size images"
COARSER, PARTS = "zoom level 19 for 21", "single images of Dubai (under one megapixel)"
ELSEWHERE = "sound scenes of the other three kinds"
READY = "tiles of other places, one by one, by the ready model"


@dataclass(frozen=True)
class Imagery:
    """One kind of imagery: training images, images that scenes are made of, and scenes that truly are too coarse."""

    name: str
    training: Sequence[Path]
    scenes: Sequence[Sequence[Sequence[Path]]]
    coarse: Sequence[Path] = ()


def described(images: Sequence[Pixels]) -> ModelDescription:
    """Describe a model of these images, as a file does: rounded."""
    usable = [sample for sample in map(ImageSample.of, images) if sample.usable]
    known = image_distribution(usable, low=0, high=255)
    classes = ClassMap.build(["one", "other"])
    model = ModelDescription("unet", classes, 3, Normalization.named("imagenet", 3), 32, images=known)
    return ModelDescription.from_dict(model.to_dict())


def tiles(folder: Path, zoom: int) -> dict[tuple[int, int], Path]:
    """Return the tiles of a folder by column and row."""
    pattern = re.compile(rf"OAM-(\d+)-(\d+)-{zoom}")
    matches = {path: pattern.fullmatch(path.stem) for path in sorted(folder.rglob("*.jpg"))}
    return {(int(match[1]), int(match[2])): path for path, match in matches.items() if match}


def blocks(places: dict[tuple[int, int], Path], side: int) -> list[list[list[Path]]]:
    """Cut tiles into as many full squares of side × side as one grid gives."""
    grids = []
    for right in range(side):
        for down in range(side):
            squares = {((col + right) // side, (row + down) // side) for col, row in places}
            corners = [(col * side - right, row * side - down) for col, row in sorted(squares)]
            keys = [
                [[(col + step, row + below) for step in range(side)] for below in range(side)] for col, row in corners
            ]
            full = [square for square in keys if all(key in places for line in square for key in line)]
            grids.append([[[places[key] for key in line] for line in square] for square in full])
    return max(grids, key=len)


def all_imagery(data: Path) -> list[Imagery]:
    """Find the four kinds."""
    dubai = {tile: sorted((data / f"dubai/Tile {tile}/images").glob("*.jpg")) for tile in (2, 4, 5, 6, 7, 8)}
    corners = (0, 1, 3, 4)
    scenes = [[dubai[tile][at : at + 2], dubai[tile][at + 3 : at + 5]] for tile in (2, 5) for at in corners]
    kinds = [Imagery("Dubai", [path for tile in (4, 6, 7, 8) for path in dubai[tile]], scenes)]
    for name, place, axis, border, trained_below in (("Zanzibar", 1, 1, 80, True), ("Nairobi", 5, 0, 36, False)):
        at = {zoom: tiles(data / f"hot-buildings/place-{place}/images", zoom) for zoom in (19, 21)}
        first = min(place[axis] for place in at[21]) + border

        def trains(
            place: tuple[int, int], zoom: int, axis: int = axis, first: int = first, below: bool = trained_below
        ) -> bool:
            at_finest = place[axis] << (21 - zoom)
            return (at_finest < first) == below

        training = [path for place, path in at[21].items() if trains(place, 21)]
        elsewhere = {place: path for place, path in at[21].items() if not trains(place, 21)}
        coarse = [path for place, path in at[19].items() if not trains(place, 19)]
        kinds.append(Imagery(name, training[:: -(-len(training) // 96)], blocks(elsewhere, 3), coarse))
    banepa = tiles(data / "aerial-unlabeled/banepa", 19)
    west = [path for (col, _), path in banepa.items() if col < 386693]
    east = blocks({place: path for place, path in banepa.items() if place[0] >= 386696}, 2)
    kinds.append(Imagery("Banepa", west[::2], east))
    return kinds


def named(model: ModelDescription | None, image: Pixels) -> str:
    """Return the cause that is named."""
    misuse = find_misuse(model, ImageSample.of(image))
    return SOUND if misuse is None else misuse.cause


def mostly_white(image: Pixels) -> bool:
    """Whether a scene is itself half empty, as some of Banepa are."""
    return bool(np.mean(image.min(axis=-1) == 255) > 0.05)


def measure(data: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return how often which cause was named, by row of the table and kind of imagery."""
    kinds = all_imagery(data)
    photographs = [read(path) for path in sorted((data / "VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[::96]][:TEN]
    parts = [read(path) for tile in (2, 5) for path in sorted((data / f"dubai/Tile {tile}/images").glob("*.jpg"))]
    scenes = {kind.name: [image for image in map(together, kind.scenes) if not mostly_white(image)] for kind in kinds}
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for kind in kinds:
        training = [read(path) for path in kind.training]
        model = described(training)

        def count(row: str, images: Sequence[Pixels], known: ModelDescription = model, kind: Imagery = kind) -> None:
            causes = Counter(named(known, image) for image in images)
            counts.setdefault(row, {})[kind.name] = dict(causes.most_common())
            print(kind.name, row, dict(causes), flush=True)

        own = scenes[kind.name]
        chosen = own[:: max(1, len(own) // TEN)][:TEN]
        count("sound", own)
        for fault, (_, make) in FAULTS.items():
            count(fault, [make(image) for image in chosen])
        count(OTHER, photographs)
        count(FINER, chosen, described([shrunk(image, 2) for image in training]))
        if kind.coarse:
            count(COARSER, [read(path) for path in kind.coarse])
        if kind.name == "Dubai":
            count(PARTS, parts)
        count(ELSEWHERE, [image for name, images in scenes.items() if name != kind.name for image in images])
    ready = Predictor("aerial-landcover", runtime="onnxruntime").backend.description
    for folder, name in (("banepa", "Banepa"), ("hot-place-3", "a third place, 256 × 256 at zoom level 21")):
        found = [named(ready, read(path)) for path in sorted((data / "aerial-unlabeled" / folder).glob("*.jpg"))]
        counts.setdefault(READY, {})[name] = dict(Counter(found).most_common())
    return counts


def summary(counts: dict[str, dict[str, dict[str, int]]]) -> dict[str, Any]:
    """Return what the goals are about: shares of right causes, by fault and of all, and of sound scenes accused."""
    shares = {}
    for row, right in (*((fault, cause) for fault, (cause, _) in FAULTS.items()), (OTHER, "other")):
        causes = list(counts[row].values())
        shares[row] = sum(entry.get(right, 0) for entry in causes) / sum(sum(entry.values()) for entry in causes)
    sound = counts["sound"].values()
    accused = sum(sum(entry.values()) - entry.get(SOUND, 0) for entry in sound)
    scenes = sum(sum(entry.values()) for entry in sound)
    return {"named": shares, "named_of_all": float(np.mean([*shares.values()])), "accused": accused, "sound": scenes}


def timed(work: Path, sides: Sequence[int] = (1024, 4096)) -> list[dict[str, float]]:
    """Return processor seconds of predicting scenes with a small network in ONNX Runtime, and of looking at them."""
    classes = ClassMap.build([(name, color, None) for name, color in CLASSES])
    student = build_model("mobile", classes, options={"width": 0.5}).eval()
    random = np.random.default_rng(0)
    images = [ndimage.gaussian_filter(random.integers(0, 256, (256, 256, 3)).astype(np.uint8), 1) for _ in range(16)]
    student.description = replace(student.description, images=described(images).images)
    file = export_onnx(student, work / "student.onnx")
    rows = []
    for side in sides:
        scene = make_scene(work / f"{side}.tif", height=side, width=side)
        began = os.times()
        command = [sys.executable, "-m", "segshrink.cli", "predict", str(file), str(scene), "-o", f"{work}/{side}"]
        subprocess.run(command, check=True, capture_output=True)
        ended = os.times()
        looking = 0.0

        def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                nonlocal looking
                started = time.thread_time()
                try:
                    return function(*arguments)
                finally:
                    looking += time.thread_time() - started

            return run

        predict_scenes(file, [scene], work / f"first-{side}")
        with (
            patch.object(predicting, "find_misuse", clocked(find_misuse)),
            patch.object(ImageSample, "add", clocked(ImageSample.add)),
        ):
            started = time.process_time()
            predict_scenes(file, [scene], work / f"second-{side}")
            total = time.process_time() - started
        whole = ended.children_user + ended.children_system - began.children_user - began.children_system
        rows.append({"side": side, "command": whole, "further_scene": total, "looking": looking})
    return rows


def as_markdown(record: dict[str, Any]) -> str:
    """Return the tables."""
    counts, found, machine = record["counts"], record["summary"], record["machine"]
    kinds = list(counts["sound"])
    lines = [
        "# What a model says about scenes that it is misused on",
        "",
        f"`python benchmarks/misuse.py` measures it again and says what is what; {record['created'][:10]}, "
        f"{machine['cpu']}. Scenes show ground that the training images don't. The thresholds were set while looking "
        "at these scenes, so the shares are not those of scenes that nobody chose on.",
        "",
        f"**{found['named_of_all']:.0%} of faults named with the right cause** (the mean over the rows; goal: "
        f"{GOALS['named']:.0%}), **{found['accused']} of {found['sound']} sound scenes accused** (goal: at most "
        f"{GOALS['accused']:.0%}). The statistics take {record['bytes']} bytes of a file.",
        "",
        f"| fault | {' | '.join(kinds)} | named | instead |",
        f"|---|{'---:|' * len(kinds)}---:|---|",
    ]
    for row, right in (*((fault, cause) for fault, (cause, _) in FAULTS.items()), (OTHER, "other")):
        cells = [f"{counts[row][kind].get(right, 0)} of {sum(counts[row][kind].values())}" for kind in kinds]
        lines.append(f"| {row} | {' | '.join(cells)} | {found['named'][row]:.0%} | {causes(counts[row], right)} |")
    lines += ["", "| beside these | says |", "|---|---|"]
    for row in ("sound", PARTS, COARSER, FINER, ELSEWHERE, READY):
        lines += [f"| {row}, {kind} | {causes({kind: entry}, '')} |" for kind, entry in counts[row].items()]
    lines += [
        "",
        f"Times with {record['load']:.1f} programs waiting for {machine['cores']} cores, on average.",
        "",
        "| scene | a command, processor s | a further scene, s | looking, s | share of a command | of the scene |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["time"]:
        shares = [f"{row['looking'] / row[whole]:.1%}" for whole in ("command", "further_scene")]
        lines.append(
            f"| {row['side']:,} × {row['side']:,} | {row['command']:.2f} | {row['further_scene']:.3f} | "
            f"{row['looking']:.4f} | {' | '.join(shares)} |"
        )
    return "\n".join(lines) + "\n"


def causes(entries: dict[str, dict[str, int]], right: str) -> str:
    """List the causes but the right one, the most frequent first."""
    total: Counter[str] = Counter()
    for entry in entries.values():
        total.update(entry)
    return ", ".join(f"{cause} {count}" for cause, count in total.most_common() if cause != right)


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("SEGSHRINK_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="data sets; by default $SEGSHRINK_DATA")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)
    counts = measure(given.data)
    with tempfile.TemporaryDirectory() as work:
        times = timed(Path(work))
    size = len(json.dumps(described([read(path) for path in all_imagery(given.data)[0].training]).to_dict()["images"]))
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "bytes": size,
        "summary": summary(counts),
        "counts": counts,
        "time": times,
        "load": os.getloadavg()[0],
    }
    write_json(given.out / "misuse.json", record)
    write_text(given.out / "misuse.md", as_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
