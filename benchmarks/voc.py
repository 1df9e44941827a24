r"""Few labels, many images: a TFLite DeepLab teaches a small U-Net on Pascal VOC images that have no masks.

    python benchmarks/voc.py --data ../shared/data/VOCdevkit/VOC2012 \
        --teacher ../shared/weights/deeplabv3_257_mv_gpu.tflite

Trains the same ``separable-unet`` with the same steps several times (per seed), judged on the same 194 images at their
own size:

- ``control-150``: on 150 labeled images, without teacher;
- ``control-772``: on all 772 labeled images, without teacher;
- ``student``: on the 150 labeled images, and on the other 622 without their masks, with the teacher.

More tell what the difference comes from:

- ``overlap-772``: as ``control-772``, with as much weight on the classes' overlap as the student's terms give it;
- ``student-faint``: as the student, with a sixth of its weight on the overlap, about as ``control-772`` has;
- ``answers-772``: as ``control-772``, but the masks of the 622 images are the teacher's likeliest classes;
- ``student-772``: as the student, but with all masks.

Networks work at a sixth of the images' size, crops with them, for two CPU cores' sake (``--reduce 1`` leaves it out):
in an hour a network that starts at random learns hardly anything from larger ones. The teacher sees the images as they
are. Finished runs are skipped; the results of all go to ``benchmarks/results/voc.*``.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink import Confusion, Recipe, SceneStore, TeacherCache, load_recipe, open_dataset, open_teachers
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.files import read_json, replacing, write_json, write_text
from segshrink.training import evaluate_run, train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
CLASSES, LABELED = 21, 150
DRAW_SEED = 0
# Side of a crop of whole images.
CROP = 384
VALIDATIONS = 12
LISTS = "ImageSets/Segmentation"


@dataclass(frozen=True)
class Variant:
    """One way to train the student."""

    name: str
    train: str
    unlabeled: bool = False
    teacher: bool = False
    answered: bool = False
    settings: tuple[str, ...] = ()


VARIANTS = (
    Variant("control-150", "labeled.txt"),
    Variant("control-772", "train.txt"),
    Variant("student", "labeled.txt", unlabeled=True, teacher=True),
    Variant(
        "overlap-772", "train.txt", settings=("student.terms=[{name: cross_entropy}, {name: jaccard, weight: 3}]",)
    ),
    Variant(
        "student-faint",
        "labeled.txt",
        unlabeled=True,
        teacher=True,
        settings=(
            "distillation.terms=[{name: cross_entropy, weight: 0.2}, {name: jaccard, weight: 0.2}, "
            "{name: pixel_kl, weight: 1}, {name: soft_jaccard, weight: 0.5, options: {classes: present}}]",
        ),
    ),
    Variant("answers-772", "train.txt", answered=True),
    Variant("student-772", "train.txt", teacher=True),
)


class Data:
    """The data set with its lists, and the teacher's answers about it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.source: Path = given.data.resolve()
        self.out: Path = given.out.resolve()
        self.given = given
        train = _lines(self.source / LISTS / "train.txt")
        order = np.random.default_rng(DRAW_SEED).permutation(len(train))
        self.labeled = sorted(train[place] for place in order[:LABELED])
        self.unlabeled = sorted(set(train) - set(self.labeled))
        write_text(self.out / "labeled.txt", "\n".join(self.labeled) + "\n")
        write_text(self.out / "unlabeled.txt", "\n".join(f"JPEGImages/{stem}.jpg" for stem in self.unlabeled) + "\n")

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """Return the recipe with this data set and teacher."""
        share = [] if self.given.reduce == 1 else [f"data.resize={1 / self.given.reduce}"]
        places = [f"data.root={self.source}", f"distillation.teacher_cache={self.out / 'answers'}"]
        recipe = load_recipe(ROOT / "configs" / "voc.yaml", [*places, *share, *overrides])
        (named,) = recipe.distillation.teachers
        teacher = named.model_copy(update={"source": f"tflite:{self.given.teacher.resolve()}"})
        taught = recipe.distillation.model_copy(update={"teachers": [teacher]})
        return recipe.model_copy(update={"distillation": taught})

    def answers(self) -> tuple[SceneStore, TeacherCache]:
        """Return all labeled images, and what the teacher says about them."""
        recipe = self.recipe()
        dataset = open_dataset(recipe.data)
        store = SceneStore((*dataset.train, *dataset.val), dataset.classes)
        teacher = open_teachers(recipe.distillation, dataset.classes)
        return store, TeacherCache(teacher, [store], folder=self.out / "answers")

    def replace_masks(self) -> Path:
        """Write the data set again, with the teacher's likeliest classes as masks of the unlabeled images, once."""
        out = self.out / "answered"
        if out.exists():
            return out
        store, answers = self.answers()
        with replacing(out) as folder:
            shutil.copytree(self.source / "SegmentationClass", folder / "SegmentationClass")
            for part in ("JPEGImages", "ImageSets"):
                (folder / part).symlink_to(self.source / part)
            for number, sample in enumerate(store.samples):
                path = folder / "SegmentationClass" / f"{sample.image.stem}.png"
                if sample.image.stem in self.unlabeled:
                    likeliest = answers.scene_logits(store.image(number), sample.name).argmax(axis=0)
                    with Image.open(path) as mask:
                        palette = mask.getpalette()
                    picture = Image.fromarray(likeliest.astype(np.uint8), "P")
                    assert palette is not None  # noqa: S101  # VOC's masks have one
                    picture.putpalette(palette)
                    picture.save(path)
        return out

    def judge_answers(self) -> dict[str, dict[str, float]]:
        """Score the teacher's answers against the masks of each part of the data set, once."""
        file = self.out / "answers.json"
        if not file.exists():
            store, answers = self.answers()
            parts = {"150 labeled": self.labeled, "622 unlabeled": self.unlabeled}
            confusions = {part: Confusion(CLASSES) for part in (*parts, "194 of validation")}
            for number, sample in enumerate(store.samples):
                part = next((part for part, stems in parts.items() if sample.image.stem in stems), "194 of validation")
                likeliest = answers.scene_logits(store.image(number), sample.name).argmax(axis=0)
                confusions[part].update(likeliest, store.mask(number))
            write_json(file, {part: _scores(confusion) for part, confusion in confusions.items()})
        judged: dict[str, dict[str, float]] = read_json(file)
        return judged


def _scores(confusion: Confusion) -> dict[str, float]:
    scores = confusion.scores()
    return {
        "mean_iou": float(scores.mean_iou),
        "accuracy": float(scores.accuracy),
        **_background(confusion.matrix),
    }


def _background(matrix: NDArray[np.int64]) -> dict[str, float]:
    """Return shares: of pixels called background, of those that are, of the foreground that is called so."""
    pixels, foreground = matrix.sum(), matrix[1:].sum()
    return {
        "background_predicted": float(matrix[:, 0].sum() / pixels),
        "background_true": float(matrix[0].sum() / pixels),
        "foreground_missed": float(matrix[1:, 0].sum() / foreground),
    }


def run(variant: Variant, seed: int, *, data: Data, given: argparse.Namespace) -> None:
    """Train and evaluate one variant; a finished one is left as it is."""
    folder = data.out / f"{variant.name}-{seed}"
    if (folder / "evaluation.json").exists():
        return
    labeled = data.out / "labeled.txt"
    overrides = [
        f"seed={seed}",
        f"data.split.train={labeled if variant.train == labeled.name else f'{LISTS}/{variant.train}'}",
        f"crops.size={CROP // given.reduce}",
        f"student.training.epochs={given.epochs}",
        f"student.training.validate_every={max(given.epochs // VALIDATIONS, 1)}",
        f"student.training.threads={given.threads}",
        *([f"data.unlabeled={data.out / 'unlabeled.txt'}"] if variant.unlabeled else []),
        *([f"data.root={data.replace_masks()}"] if variant.answered else []),
        *variant.settings,
    ]
    recipe = data.recipe(overrides)
    dataset = open_dataset(recipe.data)
    if variant.teacher:
        teacher = partial(open_teachers, recipe.distillation, dataset.classes)
        result = train(recipe, out=folder, role="student", teacher=teacher, dataset=dataset, resume=True)
    else:
        result = train(recipe, out=folder, role="control", dataset=dataset, resume=True)
    evaluate_run(folder, dataset)
    print(f"{folder.name}: val mIoU {result.mean_iou:.3f}, {result.steps} steps, {result.seconds / 60:.1f} min")


def collect(data: Data, reduce: int) -> dict[str, Any]:
    """Return what every finished run reached, and how good the answers are that the student learns from."""
    out = data.out
    taught = data.judge_answers() if (out / "answers").exists() else {}
    runs: dict[str, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        for folder in sorted(out.glob(f"{variant.name}-[0-9]")):
            if not (folder / "evaluation.json").exists():
                continue
            record, evaluation = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
            runs.setdefault(variant.name, []).append(
                {
                    "seed": record["seed"],
                    "images": record["images"],
                    "steps": record["steps"],
                    "seconds": record["seconds"],
                    "parameters": evaluation["model"]["parameters"],
                    "mean_iou": evaluation["scores"]["mean_iou"],
                    "interval": evaluation["interval"]["mean_iou"],
                    "accuracy": evaluation["scores"]["accuracy"],
                    "cross_entropy": _last(folder / "metrics.csv", "val/cross_entropy"),
                    "calibration_error": evaluation["calibration"]["expected_calibration_error"],
                    "never_predicted": evaluation["never_predicted"],
                    **_background(np.asarray(evaluation["confusion"])),
                    "machine": record["machine"],
                    "created": record["created"],
                    "segshrink": record["segshrink"],
                }
            )
    return {"reduce": reduce, "runs": runs, "answers": taught}


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    first = next(iter(results["runs"].values()))[0]
    machine = first["machine"]
    lines = [
        "# Pascal VOC with few labels",
        "",
        f"Written by `benchmarks/voc.py`, begun {first['created']}, segshrink {first['segshrink']}, {machine['cpu']}, "
        f"torch {machine['torch']}, Python {machine['python']}, {machine['precision']}, threads: {machine['threads']}. "
        f"The student works at 1/{results['reduce']} of the images' size; teacher: DeepLabv3-MobileNetV2 (TFLite), "
        f"asked by tiles of 257 pixels at three zooms, mirrored too; student: separable-unet, {first['parameters']:,} "
        "parameters, random weights at first. Judged on 194 images at their own size, every pixel.",
        "",
        "| run | labeled | unlabeled | steps | minutes | mIoU | 95 % interval | accuracy | cross-entropy "
        "| calibration error | classes never predicted | called background |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in results["runs"].items():
        for run in runs:
            low, high = run["interval"]
            images = run["images"]
            cells = [
                f"{name}, seed {run['seed']}", str(images["labeled"]), str(images["unlabeled"]), str(run["steps"]),
                f"{run['seconds'] / 60:.1f}", f"{run['mean_iou']:.4f}", f"{low:.4f} to {high:.4f}",
                f"{run['accuracy']:.3f}", f"{run['cross_entropy']:.3f}", f"{run['calibration_error']:.3f}",
                str(len(run["never_predicted"])), f"{run['background_predicted']:.3f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "What each run is, the script's first lines say.", ""]
    for name, runs in results["runs"].items():
        scores = [run["mean_iou"] for run in runs]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        lines.append(f"- {name}: mean mIoU {statistics.mean(scores):.4f}{spread} over {len(scores)} seed(s)")
    if results["answers"]:
        lines += ["", "What the teacher answers about the images, against their masks:", ""]
        lines += ["| images | mIoU | accuracy | called background | are | foreground called so |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| {part} | {scores['mean_iou']:.4f} | {scores['accuracy']:.3f} | {scores['background_predicted']:.3f} "
            f"| {scores['background_true']:.3f} | {scores['foreground_missed']:.3f} |"
            for part, scores in results["answers"].items()
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run what is asked for and write the results of all finished runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder VOC2012 of the VOCdevkit layout")
    parser.add_argument("--teacher", type=Path, required=True, help="deeplabv3_257_mv_gpu.tflite")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmark-voc")
    parser.add_argument("--reduce", type=int, default=6, help="networks work at 1 / this of the images' size")
    parser.add_argument("--only", choices=[variant.name for variant in VARIANTS], action="append", default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=240)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    data = Data(given)
    for seed in range(given.seeds):
        for variant in VARIANTS:
            if given.only is None or variant.name in given.only:
                run(variant, seed, data=data, given=given)
    results = collect(data, given.reduce)
    if results["runs"]:
        write_json(RESULTS / "voc.json", results)
        write_text(RESULTS / "voc.md", to_markdown(results))


def _last(metrics: Path, column: str) -> float:
    """Return the last number of a column of a CSV file that has gaps."""
    with metrics.open(newline="") as file:
        return float([row[column] for row in csv.DictReader(file) if row[column]][-1])


def _lines(path: Path) -> list[str]:
    return path.read_text().split()


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
