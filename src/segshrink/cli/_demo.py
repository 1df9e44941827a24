"""The demo: scenes, three trainings, a prediction, and a small int8 file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from segshrink.cli._console import progress_bar
from segshrink.cli._errors import writing
from segshrink.cli._work import distill_all, refuse_foreign_runs
from segshrink.compression.quantization import QuantizationResult, quantize
from segshrink.compression.quantization.pipeline import QUANTIZATION
from segshrink.config import Recipe, load_recipe
from segshrink.data import open_dataset, write_scenes
from segshrink.export import export_onnx
from segshrink.files import claimed, refuse_foreign
from segshrink.models import load_model
from segshrink.prediction.scenes import SceneOptions, predict_scene

TRAIN, VAL, UNLABELED, SIZE = 6, 10, 40, 384
# Tiles that the int8 file is calibrated with, and points of mIoU that it may lose.
TILES, MAX_DROP = 16, 1.0


@dataclass(frozen=True)
class Demo:
    """What the demo wrote: the data set's description, the report's page, an overlay, the student in fp32 and int8."""

    data: Path
    page: Path
    overlay: Path
    onnx: Path
    int8: QuantizationResult


def run_demo(out: Path, *, seed: int) -> Demo:
    """Generate scenes, train teacher, student and control, report, segment a scene, export and quantise the student.

    What an earlier call with this folder and seed finished is not done again.
    """
    with claimed(out):
        refuse_foreign_runs(out)
        pictures = (out / "prediction" / name for name in ("scene.png", "scene.overlay.jpg"))
        refuse_foreign(out / "student.onnx", *pictures)
        refuse_foreign(out / "int8", kind=QUANTIZATION)
        return _run_demo(out, seed=seed)


def _run_demo(out: Path, *, seed: int) -> Demo:
    with progress_bar("generate scenes") as advance, writing(out):
        data = write_scenes(out / "scenes", train=TRAIN, val=VAL, unlabeled=UNLABELED, size=SIZE, seed=seed)
        advance(TRAIN + VAL + UNLABELED, TRAIN + VAL + UNLABELED)
    recipe = demo_recipe(data, seed=seed)
    page = distill_all(recipe, out=out, control=True, resume=True)
    with progress_bar("segment, export") as advance, writing(out):
        onnx = export_onnx(load_model(out), out / "student.onnx")
        advance(1, 2)
        scene = open_dataset(recipe.data).val[0]
        files = predict_scene(onnx, scene.image, out / "prediction" / "scene.png", SceneOptions(overwrite=True))
        advance(2, 2)
    with progress_bar("quantise") as advance, writing(out):
        int8 = quantize(
            load_model(out),
            recipe.data,
            out=out / "int8",
            runtimes=("onnxruntime",),
            max_drop=MAX_DROP,
            images=TILES,
            progress=advance,
        )
    return Demo(data, page, files.overlay or files.classes, onnx, int8)


def demo_recipe(data: Path, *, seed: int) -> Recipe:
    """Read the demo's recipe, which comes with the package, for a data set."""
    with resources.as_file(resources.files("segshrink.cli") / "demo.yaml") as path:
        return load_recipe(path, [f"seed={seed}"], data)
