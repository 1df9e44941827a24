"""Everything once, on generated scenes: three trainings, a report, a segmented scene, and a small int8 file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from segshrink.compression.quantization import QuantizationResult, quantize
from segshrink.compression.quantization.pipeline import QUANTIZATION
from segshrink.config import Recipe, distillation_overrides, load_recipe
from segshrink.data import open_dataset, write_scenes
from segshrink.export import export_onnx
from segshrink.files import refuse_foreign, writing
from segshrink.folder_lock import claimed
from segshrink.models import load_model
from segshrink.prediction.scenes import SceneOptions, SceneResult, predict_scene, predict_scenes
from segshrink.run_folder import WEB_PAGE
from segshrink.workflows.distill import DistillResult, distill, refuse_foreign_runs
from segshrink.workflows.progress import Progress, silent
from segshrink.workflows.train import train_teacher

# Scenes that the teacher has labels of, that judge, and without labels; and those whose labels the student has, too.
TRAIN, VAL, UNLABELED, SIZE = 6, 10, 40, 384
LABELED = 1
# The scenes are the same whatever the seed of the trainings.
SCENES_SEED = 0
# A model that comes with the package.
READY = "aerial-landcover"
# Tiles that the int8 file is calibrated with, and points of mIoU that it may lose.
TILES, MAX_DROP = 16, 1.0


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote.

    Attributes:
        data: The data set's description.
        distilled: Student, teacher and control, with the report.
        overlay: A segmented scene.
        ready: What a model that comes with the package makes of that scene, and says of it.
        page: The student as a page for browsers; None where it couldn't be written.
        onnx: The student in fp32.
        int8: The student in int8, beside fp32.
    """

    data: Path
    distilled: DistillResult
    overlay: Path
    ready: SceneResult
    page: Path | None
    onnx: Path
    int8: QuantizationResult


def demo(out: str | Path, *, seed: int = 0, progress: Progress = silent) -> DemoResult:
    """Generate scenes, train teacher, student and control, report, segment a scene, export and quantize the student.

    What an earlier call with this folder and seed finished is not done again.

    Args:
        out: Folder for scenes, runs and report.
        seed: Random seed of the trainings; the scenes are always the same.
        progress: Told how far each stage has come.

    Raises:
        FileError: ``out`` holds what this program didn't write, or can't be written.
    """
    out = Path(out)
    with claimed(out):
        refuse_foreign_runs(out)
        names = (f"{stem}{end}" for stem in ("scene", "ready") for end in (".png", ".overlay.jpg", ".qml"))
        pictures = (out / "prediction" / name for name in names)
        refuse_foreign(out / "student.onnx", *pictures)
        refuse_foreign(out / "int8", kind=QUANTIZATION)
        return _demo(out, seed=seed, progress=progress)


def _demo(out: Path, *, seed: int, progress: Progress) -> DemoResult:
    with writing(out):
        data = write_scenes(out / "scenes", train=TRAIN, val=VAL, unlabeled=UNLABELED, size=SIZE, seed=SCENES_SEED)
    progress("generate scenes", TRAIN + VAL + UNLABELED, TRAIN + VAL + UNLABELED)
    of_teacher, recipe = demo_recipes(data, seed=seed, teacher=(out / "teacher-run").resolve())
    dataset = open_dataset(of_teacher.data)
    train_teacher(of_teacher, out=out / "teacher-run", dataset=dataset, resume=True, progress=progress)
    distilled = distill(recipe, out=out, control=True, resume=True, force=True, progress=progress)
    with writing(out):
        onnx = export_onnx(load_model(out), out / "student.onnx")
        progress("segment, export", 1, 3)
        scene = open_dataset(recipe.data).val[0]
        pictures, options = out / "prediction", SceneOptions(overwrite=True)
        files = predict_scene(onnx, scene.image, pictures / "scene.png", options)
        progress("segment, export", 2, 3)
        (ready,) = predict_scenes(READY, [scene.image], pictures / "ready.png", options)
        progress("segment, export", 3, 3)
        int8 = quantize(
            load_model(out),
            recipe.data,
            out=out / "int8",
            runtimes=("onnxruntime",),
            max_drop=MAX_DROP,
            images=TILES,
            progress=partial(progress, "quantize"),
        )
    page = distilled.folder / WEB_PAGE
    overlay, page_if_written = files.overlay or files.classes, page if page.is_file() else None
    return DemoResult(data, distilled, overlay, ready, page_if_written, onnx, int8)


def demo_recipes(data: Path, *, seed: int, teacher: Path) -> tuple[Recipe, Recipe]:
    """Read the demo's recipe, which comes with the package, for a data set: the teacher's, and the student's."""
    few = ", ".join(f"train/images/train_{number:03d}.jpg" for number in range(LABELED))
    of_student = [f"data.split={{train: [{few}], val: [val]}}", *distillation_overrides([teacher])]
    with resources.as_file(resources.files("segshrink.workflows") / "demo.yaml") as path:
        return load_recipe(path, [f"seed={seed}"], data), load_recipe(path, [f"seed={seed}", *of_student], data)
