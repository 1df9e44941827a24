"""Claim: predicting a scene takes hardly longer than the model itself, in memory that doesn't grow with the scene.

    python benchmarks/scene.py                      # a quarter of an hour on two free cores; results beside the scripts
    python benchmarks/scene.py --large              # and a scene of ten times the pixels: its memory, the model's share
    python benchmarks/scene.py --levers             # and what was tried to make it faster
    python benchmarks/scene.py --side 2000 --rounds 1 --out /tmp/smoke

The scene: 10,000 × 10,000 pixels of three bytes, deflated in blocks of 512, made of synthetic aerial scenes. The model:
``mobile`` at half its width, 0.23 GFLOP for a tile of 256 × 256, six classes, as ONNX in 32-bit floats and in 8-bit
integers, and for OpenVINO. Its weights are random, which costs the same time.

- ``scene``: ``segshrink predict SCENE -o FOLDER`` as it comes, from the start of the program to its end: libraries are
  loaded, the model is opened, the scene is read, predicted, and written as a Cloud-Optimized GeoTIFF with overviews,
  with its picture. Memory is the largest sum of resident sets over the program and what it started.
- ``bare``: nothing but the model: as many tiles of the same size, lying in memory, on the same streams, after a first
  one. Its time over that of ``scene`` is the model's share.
- ``plain``: what people write, from start to end: rasterio windows one after the other, the same runtime with all cores
  on each tile, NumPy's cosine blending of the logits over the whole scene, argmax, a deflated GeoTIFF.

Every job runs in a process of its own, by turns, so that a machine that slows down slows all of them. A lever is an
environment variable or an option of ``predict`` that was hoped to help; with each the last runtime predicts the scene.
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
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from processor_results import RESULTS, results_stem
from segshrink import ClassMap
from segshrink.errors import ModelError
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine, last_words

SIDE, PATCH = 10_000, 1024
WIDTH = 0.5
JOBS = ("scene", "bare", "plain")
GOALS = {"model_share": 0.85, "megapixels_per_second": 30.0, "peak_mb": 700.0, "growth": 1.05}
# What was hoped to help: environment variables and options.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}
LEVERS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "as it comes": ({}, ()),
    "freed memory stays with the process": (KEEPING, ()),
    "one thread for NumPy's products": ({"OPENBLAS_NUM_THREADS": "1"}, ()),
    "tiles of 384 pixels": ({}, ("--tile", "384")),
    "tiles of 768 pixels": ({}, ("--tile", "768")),
    "tiles of 1,024 pixels": ({}, ("--tile", "1024")),
    "half the overlap": ({}, ("--overlap", "32")),
}
# Share of the processors, in percent, that other programs may take while results are measured that are kept.
MOST_BUSY = 10.0


def make_models(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write the student for each runtime; returns name -> (file, runtime)."""
    import torch

    from segshrink import Normalization, build_model, export_onnx, export_openvino, load_dataset, write_scenes
    from segshrink.compression import quantize
    from segshrink.data import CLASSES

    torch.manual_seed(0)
    classes = ClassMap.build([(name, color, None) for name, color in CLASSES])
    student = build_model(
        "mobile", classes, options={"width": WIDTH}, normalization=Normalization.named("imagenet", 3)
    ).eval()
    data = load_dataset(write_scenes(folder / "data", train=4, val=2, unlabeled=0, size=256, seed=0))
    quantize(student, data, out=folder / "int8", max_drop=100.0)
    models = {
        "ONNX Runtime, fp32": (export_onnx(student, folder / "student.onnx"), "onnxruntime"),
        "ONNX Runtime, int8": (folder / "int8" / "int8.onnx", "onnxruntime"),
        "OpenVINO, bf16 where it can": (export_openvino(student, folder / "student.xml"), "openvino"),
        "OpenVINO, int8": (folder / "int8" / "int8.xml", "openvino"),
    }
    return {name: model for name, model in models.items() if model[0].exists()}  # int8 may be refused here


def make_scene(path: Path, *, height: int, width: int) -> Path:
    """Write a textured scene, patch by patch; patches are turned, mirrored and lit differently."""
    from segshrink.data import generate_scene

    patches = [generate_scene(0, "val", number=number, size=PATCH).image for number in range(4)]
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8"}
    storage = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "pixel"}
    place = {"crs": "EPSG:32640", "transform": rasterio.transform.from_origin(400_000, 2_800_000, 0.5, 0.5)}
    with rasterio.open(path, "w", **profile, **storage, **place, bigtiff="if_safer") as dataset:
        for row in range(0, height, PATCH):
            for col in range(0, width, PATCH):
                patch = np.rot90(patches[rng.integers(len(patches))], int(rng.integers(4)))
                lit = np.clip(patch * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
                part = lit[: height - row, : width - col]
                window = RasterWindow(col, row, part.shape[1], part.shape[0])
                dataset.write(part.transpose(2, 0, 1), window=window)
    return path


def bare(model: Path, scene: Path, *, runtime: str, threads: int) -> float:
    """Return the seconds that the model alone takes for a scene's tiles."""
    from segshrink.prediction import Backend
    from segshrink.prediction.scenes.stream import Streams
    from segshrink.prediction.scenes.tiles import lay_out
    from segshrink.prediction.tiled import choose_tiling

    with rasterio.open(scene) as dataset, Streams(model, runtime=runtime, cores=threads) as streams:
        tiling = choose_tiling(streams.backend.description, runtime=runtime)
        spans = lay_out(
            dataset.height, dataset.width, tile=tiling.tile, overlap=tiling.overlap, align=tiling.stride, centered=True,
            span_pixels=1,
        )  # fmt: skip
        sides = range(0, min(dataset.height, dataset.width) - tiling.tile + 1, tiling.tile)
        tiles = [pixels(dataset, side, side, tiling.tile)[np.newaxis] for side in sides][:16]

        def tasks(count: int) -> Iterator[Callable[[Backend], NDArray[Any]]]:
            for number in range(count):
                tile = tiles[number % len(tiles)]
                yield lambda backend, tile=tile: backend.classify(tile)  # type: ignore[misc]

        list(streams.run(tasks(4 * threads)))
        started = time.perf_counter()
        for _ in streams.run(tasks(sum(len(span.tiles) for span in spans))):
            pass
        return time.perf_counter() - started


def plain(model: Path, scene: Path, *, runtime: str, threads: int, tile: int = 512, overlap: int = 64) -> float:
    """Predict a scene as one writes it by hand; returns the seconds."""
    from segshrink import open_backend
    from segshrink.tiling import cosine_weights, grid

    started = time.perf_counter()
    backend = open_backend(model, runtime=runtime, threads=threads)
    with rasterio.open(scene) as dataset:
        height, width = dataset.height, dataset.width
        sums = np.zeros((backend.num_classes, height, width), np.float32)
        totals = np.zeros((height, width), np.float32)
        for window in grid(height, width, tile=tile, overlap=overlap):
            image = dataset.read(window=RasterWindow(window.col, window.row, window.width, window.height))
            logits = backend.run(image.transpose(1, 2, 0)[np.newaxis])[0]
            weights = cosine_weights(window.height, window.width, overlap=overlap)
            rows, cols = window.slices
            sums[:, rows, cols] += logits * weights
            totals[rows, cols] += weights
        classes = (sums / totals).argmax(axis=0).astype(np.uint8)
        profile = {**dataset.profile, "count": 1, "nodata": 255}
    with tempfile.TemporaryDirectory() as out, rasterio.open(Path(out) / "classes.tif", "w", **profile) as target:
        target.write(classes, 1)
    return time.perf_counter() - started


def pixels(dataset: Any, row: int, col: int, side: int) -> NDArray[np.uint8]:
    """Read a square as (side, side, bands)."""
    return np.ascontiguousarray(dataset.read(window=RasterWindow(col, row, side, side)).transpose(1, 2, 0))


def run_job(
    job: str, model: Path, scene: Path, *, runtime: str, threads: int, lever: str = "as it comes"
) -> dict[str, float]:
    """Do one job in a process of its own; returns its seconds and its largest memory."""
    environment, options = LEVERS[lever]
    with tempfile.TemporaryDirectory() as out:
        if job == "scene":
            arguments = ["-m", "segshrink.cli", "predict", model, scene, "-o", Path(out) / "map"]
            arguments += ["--threads", threads, "--runtime", runtime, *options]
        else:
            arguments = [__file__, "--job", job, "--model", model, "--scene", scene]
            arguments += ["--threads", threads, "--runtime", runtime]
        started = time.perf_counter()
        program = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        peak = watch(program)
        seconds = time.perf_counter() - started
        said, complaint = program.communicate()
    if program.returncode:
        raise ModelError(f"{job} failed with {runtime}: {last_words(program.returncode, complaint)}")
    return {"seconds": float(said.split()[-1]) if job == "bare" else seconds, "peak_mb": peak}


def watch(program: subprocess.Popen[bytes]) -> float:
    """Wait for a program; returns the largest sum of resident sets of it and its children, in 10^6 bytes."""
    top, peak = psutil.Process(program.pid), 0.0
    while program.poll() is None:
        try:
            tree = [top, *top.children(recursive=True)]
            peak = max(peak, sum(process.memory_info().rss for process in tree) / 1e6)
        except psutil.Error:
            pass
        time.sleep(0.02)
    return peak


def measure(work: Path, *, side: int, large: bool, levers: bool, threads: int, rounds: int) -> dict[str, Any]:
    """Run all jobs, by turns, and return what they took."""
    models = make_models(work)
    scene = make_scene(work / "scene.tif", height=side, width=side)
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {job: [] for job in JOBS} for name in models}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name, (model, runtime) in models.items():
            if name in failed:
                continue
            try:
                for job in JOBS:
                    found[name][job].append(run_job(job, model, scene, runtime=runtime, threads=threads))
                    print(name, job, found[name][job][-1], flush=True)
            except ModelError as error:
                failed[name] = str(error)
                print(name, error, flush=True)
    models = {name: model for name, model in models.items() if name not in failed}
    summary = {name: summarize(found[name], megapixels=side * side / 1e6) for name in models}
    tried: dict[str, list[float]] = {}
    for _ in range(rounds if levers else 0):
        for lever in LEVERS:
            model, runtime = list(models.values())[-1]
            seconds = run_job("scene", model, scene, runtime=runtime, threads=threads, lever=lever)["seconds"]
            tried.setdefault(lever, []).append(seconds)
            print(lever, seconds, flush=True)
    if large:
        scene.unlink()
        tall = make_scene(work / "large.tif", height=10 * side, width=side)
        for name, (model, runtime) in models.items():
            result = run_job("scene", model, tall, runtime=runtime, threads=threads)
            alone = run_job("bare", model, tall, runtime=runtime, threads=threads)["seconds"]
            summary[name]["large"] = {
                **result,
                "growth": result["peak_mb"] / summary[name]["scene"]["peak_mb"],
                "model_share": alone / result["seconds"],
                "megapixels_per_second": 10 * side * side / 1e6 / result["seconds"],
            }
            print(name, "large", summary[name]["large"], flush=True)
    return {"summary": summary, "processes": found, "levers": tried, "failed": failed}


def summarize(jobs: dict[str, list[dict[str, float]]], *, megapixels: float) -> dict[str, Any]:
    """Return medians over the rounds, and what follows from them."""
    row: dict[str, Any] = {}
    for job, runs in jobs.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        row[job] = {
            "seconds": seconds,
            "megapixels_per_second": megapixels / seconds,
            "peak_mb": max(run["peak_mb"] for run in runs),
        }
    pairs = zip(jobs["bare"], jobs["scene"], strict=True)
    row["model_share"] = statistics.median(alone["seconds"] / whole["seconds"] for alone, whole in pairs)
    row["times_as_fast_as_plain"] = row["plain"]["seconds"] / row["scene"]["seconds"]
    return row


def as_markdown(record: dict[str, Any]) -> str:
    """Return the table that goes beside the numbers."""
    machine, side = record["machine"], record["side"]
    lines = [
        "# Predicting a scene: time and memory",
        "",
        f"A scene of {side:,} × {side:,} × 3 bytes, `mobile` of width {WIDTH:g} (0.23 GFLOP for 256 × 256 pixels), "
        f"{machine['threads']} cores of {machine['cpu']}, {record['created'][:10]}; other programs took "
        f"{record['busy_percent']:.0f} % of the machine. Medians over {record['rounds']} processes of each kind, the "
        "largest memory. `python benchmarks/scene.py` measures it again and says what is what.",
        "",
        "| runtime | `segshrink predict`, s | Mpixel/s | model alone, s | its share | plain loop, s | times as fast "
        "| peak MB | plain loop's | ten times the pixels, s | Mpixel/s | model's share | peak MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in record["summary"].items():
        large = "– | – | – | –"
        if "large" in row:
            large = (
                f"{row['large']['seconds']:.1f} | {row['large']['megapixels_per_second']:.1f} | "
                f"{row['large']['model_share']:.0%} | {row['large']['peak_mb']:.0f}"
            )
        lines.append(
            f"| {name} | {row['scene']['seconds']:.1f} | {row['scene']['megapixels_per_second']:.1f} | "
            f"{row['bare']['seconds']:.1f} | {row['model_share']:.0%} | {row['plain']['seconds']:.1f} | "
            f"{row['times_as_fast_as_plain']:.1f} | {row['scene']['peak_mb']:.0f} | {row['plain']['peak_mb']:.0f} | "
            f"{large} |"
        )
    lines += ["", *(f"- {name}: {verdict(row)}." for name, row in record["summary"].items())]
    lines += [*(f"- {name}: {reason}." for name, reason in record["failed"].items()), ""]
    if record["levers"]:
        lines += [
            f"What was tried to make the last of them faster, medians of {record['rounds']} processes, by turns:",
            "",
            "| lever | before, s | after, s | gain | minutes taken |",
            "|---|---:|---:|---:|---:|",
        ]
        before = statistics.median(record["levers"]["as it comes"])
        for lever, seconds in list(record["levers"].items())[1:]:
            after = statistics.median(seconds)
            lines.append(
                f"| {lever} | {before:.2f} | {after:.2f} | {1 - after / before:+.1%} | {sum(seconds) / 60:.1f} |"
            )
        lines += [""]
    return "\n".join(lines)


def verdict(row: dict[str, Any]) -> str:
    """Say which goals were reached."""
    reached = {
        f"{GOALS['megapixels_per_second']:g} Mpixel/s": row["scene"]["megapixels_per_second"]
        >= GOALS["megapixels_per_second"],
        f"less than {GOALS['peak_mb']:g} MB": row["scene"]["peak_mb"] < GOALS["peak_mb"],
    }
    if "large" in row:
        share = f"a model share of {GOALS['model_share']:.0%} with ten times the pixels"
        reached[share] = row["large"]["model_share"] >= GOALS["model_share"]
        reached["no more memory for ten times the pixels"] = row["large"]["growth"] <= GOALS["growth"]
    return "; ".join(f"{goal}: {'reached' if good else 'missed'}" for goal, good in reached.items())


def main(arguments: Sequence[str]) -> None:
    """Measure and write, or do one job of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of the scene's sides, at least 600")
    parser.add_argument("--large", action="store_true", help="also a scene of ten times the height")
    parser.add_argument("--levers", action="store_true", help="also what was tried to make it faster")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", choices=JOBS[1:], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runtime", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.job:
        job = {"bare": bare, "plain": plain}[given.job]
        print(job(given.model, given.scene, runtime=given.runtime, threads=given.threads))
        return
    busy = psutil.cpu_percent(interval=3)
    if busy > MOST_BUSY and given.out == RESULTS:
        sys.exit(f"other programs take {busy:.0f} % of this machine; wait for them, or measure into another --out")
    settings = {name: getattr(given, name) for name in ("side", "large", "levers", "threads", "rounds")}
    with tempfile.TemporaryDirectory() as work:
        found = measure(Path(work), **settings)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine(threads=given.threads)
    record = {"created": created, "machine": machine, "busy_percent": busy, **settings, **found}
    stem = results_stem(given.out, "scene", machine["cpu"])
    write_json(Path(f"{stem}.json"), json.loads(json.dumps(record)))
    write_text(Path(f"{stem}.md"), as_markdown(record))
    print(as_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
