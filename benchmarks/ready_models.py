"""Make the ready models of ``src/segshrink/library`` from students of ``proof.py``, and write their cards.

    python benchmarks/ready_models.py --runs RUNS --data ../shared/data

A student becomes an int8 file of its ready model's name, and its weights in half precision the start of that name. The
card's scores are those of the file itself on the ground that the student has never seen, every pixel at native size.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from segshrink import EvaluationRecord, evaluate, load_dataset, quantize
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.files import write_text
from segshrink.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "src" / "segshrink" / "library"


@dataclass(frozen=True)
class Ready:
    """A ready model: the run it comes from and what people should know of it.

    Attributes:
        name: Of the file.
        run: Its cell in ``proof.py``.
        data: Description of the data set in ``configs/data``.
        root: Folder of the data set under the data.
        start: Name of its weights as a start; None: they aren't kept.
        about: What it is for, where it was trained and judged, and what it can't do.
        sources: Data and weights, with licenses.
    """

    name: str
    run: str
    data: str
    root: str
    start: str | None
    about: str
    sources: tuple[str, ...]


READY = (
    Ready(
        "aerial-landcover",
        "dubai/control-4000-0",
        "dubai.yaml",
        "dubai",
        "aerial",
        "Land cover from the air in five classes, for color images of 8 bits (red, green, blue) of about 0.3 m a "
        "pixel. It learned from the labels of tiles 4, 6, 7 and 8 of the Dubai scenes, and is judged on tiles 2 and 5, "
        "which it hasn't seen. Those show a desert town and its coast: elsewhere, fields, forests and roofs of other "
        "kinds may be called wrongly, and these scores say little. The labels are rough: where two label sets of the "
        "same ground overlap, they agree on 69 to 81 % of the pixels.",
        (
            "Scenes and masks: Semantic segmentation of aerial imagery, Humans in the Loop and the Mohammed Bin Rashid "
            "Space Centre, CC0 1.0",
            "Start of its encoder: MobileNetV2 trained on ImageNet (Apache-2.0)",
        ),
    ),
)


def make(ready: Ready, runs: Path, data: Path) -> None:
    """Write a ready model's file, its start and its card."""
    model = runs / ready.run / "model"
    overrides = [f"root={data / ready.root}"]
    description = load_dataset(ROOT / "configs" / "data" / ready.data, overrides)
    with tempfile.TemporaryDirectory() as folder:
        result = quantize(model, description, out=Path(folder) / "int8", runtimes=["onnxruntime"])
        print(result)
        file = LIBRARY / f"{ready.name}.onnx"
        shutil.copyfile(Path(folder) / "int8" / "int8.onnx", file)
    if ready.start is not None:
        start = LIBRARY / ready.start
        start.mkdir(exist_ok=True)
        shutil.copyfile(model / "config.json", start / "config.json")
        tensors = load_file(model / "model.safetensors")
        halved = {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}
        save_file(halved, start / "model.safetensors", metadata={"format": "pt"})
    whole, small = (evaluate(each, description, name=ready.name, border=3, pictures=0) for each in (model, file))
    write_text(LIBRARY / f"{ready.name}.md", card(ready, file.stat().st_size, whole, small))


def card(ready: Ready, size: int, whole: EvaluationRecord, small: EvaluationRecord) -> str:
    """Return a ready model's card as Markdown."""
    scores, between = small.scores, small.interval
    over = f" ({between.mean_iou[0]:.3f} to {between.mean_iou[1]:.3f} over images)" if between else ""
    of_classes = [
        f"| IoU of {each.name} | {'–' if value is None else f'{value:.3f}'} |"
        for each, value in zip(small.classes, scores.iou, strict=True)
    ]
    return "\n".join(
        [
            f"# {ready.name}",
            "",
            ready.about,
            "",
            f"`segshrink predict {ready.name} scene.tif --out maps` takes it, and so does every command that takes a "
            "model"
            + (f"; `start: {ready.start}` in a recipe starts a student from its weights." if ready.start else "."),
            "",
            "## Measured",
            "",
            f"By `benchmarks/ready_models.py` on {describe_machine()['cpu']}: the file itself, {size / 1e3:,.0f} kB in "
            f"8-bit integers, on every labeled pixel of {small.images} images of ground that it hasn't seen.",
            "",
            "| | |",
            "|---|---|",
            f"| mIoU | {scores.mean_iou:.3f}{over} |",
            f"| mIoU before 8-bit integers | {whole.scores.mean_iou:.3f} |",
            *of_classes,
            "",
            "## Sources",
            "",
            *(f"- {source}." for source in ready.sources),
            "",
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Make the ready models whose runs are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where proof.py's runs lie")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    given = parser.parse_args(arguments)
    for ready in READY:
        if (given.runs / ready.run / "model").is_dir():
            make(ready, given.runs.resolve(), given.data.resolve())


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
