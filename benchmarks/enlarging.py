"""Claim: runtimes double and quadruple logits quicker by convolutions than by a resize.

    python benchmarks/enlarging.py      # two minutes on two free cores; results beside the scripts

A network of one convolution gives logits of 512 × 512 pixels at half, a quarter or an eighth of the size; the file
chooses classes. Measured with its last resize as it was exported, and with the convolutions of
``segshrink.export.enlarging`` wherever they are possible, whether or not an export would take them. Runs alternate
between the files.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from torch import Tensor, nn

from segshrink import __version__
from segshrink.classes import ClassMap
from segshrink.export import enlarging, export_onnx
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine, package_versions
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel
from segshrink.prediction import open_backend

RESULTS = Path(__file__).resolve().parent / "results"
SIZE, FACTORS, CLASSES = 512, (2, 4, 8), (2, 6, 12, 21)
RUNTIMES = ("onnxruntime", "openvino")
ROUNDS, SETTLING, RUNS = 5, 6, 8


class Head(nn.Module):
    """Logits at a fraction of the size."""

    def __init__(self, classes: int, factor: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, classes, 3, factor, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C, H / factor, W / factor)."""
        logits: Tensor = self.convolution(images)
        return logits


def files(classes: int, factor: int, folder: Path) -> dict[str, Path]:
    """Export the two files."""
    names = ClassMap.build([(f"class {number}", None, None) for number in range(classes)])
    description = ModelDescription("head", names, 3, Normalization.named("half", 3), factor)
    model = SegmentationModel(Head(classes, factor), description).eval()
    written = {}
    for way, settings in (("resize", {"_is_bilinear": lambda node: False}), ("convolution", {"_MOST_DOUBLED": 256})):
        with patch.multiple(enlarging, **settings):
            written[way] = export_onnx(model, folder / f"{way}-{factor}-{classes}.onnx")
    return written


def measure(classes: int, factor: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds by runtime and way."""
    images = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    opened = {
        (runtime, way): open_backend(path, runtime=runtime)
        for way, path in files(classes, factor, folder).items()
        for runtime in RUNTIMES
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in opened}
    for _ in range(ROUNDS):
        for key, backend in opened.items():
            for run in range(SETTLING + RUNS):
                start = time.perf_counter()
                backend.classify(images)
                if run >= SETTLING:
                    seconds[key].append(time.perf_counter() - start)
    return {
        runtime: {way: 1000 * statistics.median(seconds[runtime, way]) for way in ("resize", "convolution")}
        for runtime in RUNTIMES
    }


def to_markdown(record: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine = record["machine"]
    lines = [
        "# Enlarging logits by convolutions",
        "",
        f"{record['created'][:10]}, {machine['cpu']}, {machine['threads']} threads, "
        f"{', '.join(f'{name} {version}' for name, version in record['versions'].items())}. Milliseconds from raw "
        f"pixels ({SIZE} × {SIZE}) to classes, one convolution for a network, medians of {ROUNDS * RUNS} runs. "
        "`python benchmarks/enlarging.py` measures it again.",
        "",
        "| factor | classes | ONNX Runtime: resize | convolution | OpenVINO: resize | convolution |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in record["rows"]:
        times = [f"{row[runtime][way]:.2f}" for runtime in RUNTIMES for way in ("resize", "convolution")]
        lines.append(f"| {row['factor']} | {row['classes']} | {' | '.join(times)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {"factor": factor, "classes": classes, **measure(classes, factor, Path(folder))}
            for factor in FACTORS
            for classes in CLASSES
        ]
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "segshrink": __version__,
        "machine": describe_machine(),
        "versions": package_versions(*RUNTIMES),
        "rows": rows,
    }
    write_json(RESULTS / "enlarging.json", record)
    write_text(RESULTS / "enlarging.md", to_markdown(record))
    print(to_markdown(record))


if __name__ == "__main__":
    main()
