r"""Few labels, many images: a TFLite DeepLab teaches a small U-Net on Pascal VOC images that have no masks.

    python benchmarks/voc.py --data ../shared/data/VOCdevkit/VOC2012 \
        --teacher ../shared/weights/deeplabv3_257_mv_gpu.tflite

Trains the same ``separable-unet`` with the same steps several times (per seed), judged on the same 194 images:

- ``control-150``: on 150 labelled images, without teacher;
- ``control-772``: on all 772 labelled images, without teacher;
- ``student``: on the 150 labelled images, and on the other 622 without their masks, with the teacher.

More tell what the difference comes from:

- ``overlap-772``: as ``control-772``, with as much weight on the classes' overlap as the student's terms give it;
- ``student-faint``: as the student, with a sixth of its weight on the overlap, about as ``control-772`` has;
- ``answers-772``: as ``control-772``, but the masks of the 622 images are the teacher's likeliest classes;
- ``student-772``: as the student, but with all masks.

Images and masks are first reduced to a sixth, crops with them, for two CPU cores' sake (``--reduce 1`` leaves them): in
an hour a network that starts at random learns hardly anything from larger ones. The teacher sees the images as they
are; its probabilities are averaged to the small images' size and kept as soft label maps, from which the student
learns.
Finished runs are skipped; the results of all go to ``benchmarks/results/voc.*``.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segshrink.allocator import restart_with_tuned_allocator
from segshrink.files import read_json, replacing, write_json, write_text

if TYPE_CHECKING:
    from segshrink.classes import ClassMap
    from segshrink.config import Teaching

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


def prepare(source: Path, out: Path, reduce: int) -> None:
    """Write the reduced data set and the lists of labelled and unlabelled training images, once."""
    if out.exists():
        return
    train, val = (_lines(source / LISTS / f"{part}.txt") for part in ("train", "val"))
    order = np.random.default_rng(DRAW_SEED).permutation(len(train))
    labeled = sorted(train[place] for place in order[:LABELED])
    unlabeled = sorted(set(train) - set(labeled))
    with replacing(out) as folder:
        for part in ("JPEGImages", "SegmentationClass", LISTS):
            (folder / part).mkdir(parents=True)
        for stem in (*train, *val):
            with Image.open(source / "JPEGImages" / f"{stem}.jpg") as image:
                size = (max(image.width // reduce, 1), max(image.height // reduce, 1))
                small = image.resize(size, Image.Resampling.LANCZOS) if reduce > 1 else image
                small.save(folder / "JPEGImages" / f"{stem}.png")
            with Image.open(source / "SegmentationClass" / f"{stem}.png") as mask:
                mask.resize(size, Image.Resampling.NEAREST).save(folder / "SegmentationClass" / f"{stem}.png")
        for name, stems in (("train", train), ("val", val), ("labeled", labeled)):
            (folder / LISTS / f"{name}.txt").write_text("\n".join(stems) + "\n")
        images = "\n".join(f"JPEGImages/{stem}.png" for stem in unlabeled)
        (folder / LISTS / "unlabeled.txt").write_text(images + "\n")


def answer(data: Path, source: Path, teaching: Teaching, classes: ClassMap, out: Path) -> None:
    """Write the teacher's probabilities for every image at its full size, averaged to the reduced size, once."""
    if out.exists():
        return
    import torch

    from segshrink.teachers import open_teachers

    opened = open_teachers(teaching, classes)
    with replacing(out) as folder:
        folder.mkdir()
        for small in sorted((data / "JPEGImages").iterdir()):
            with Image.open(source / "JPEGImages" / f"{small.stem}.jpg") as image:
                pixels = np.asarray(image.convert("RGB"))
            with Image.open(small) as image:
                size = (image.height, image.width)
            logits = torch.from_numpy(opened.scene_logits(pixels, small.stem))
            likely = torch.nn.functional.interpolate(logits.softmax(dim=0)[None], size=size, mode="area")[0]
            np.save(folder / f"{small.stem}.npy", likely.half().numpy())


def replace_masks(data: Path, answers: Path, out: Path) -> None:
    """Write the data set again, with the likeliest classes of the answers as masks of the unlabelled images, once."""
    if out.exists():
        return
    with replacing(out) as folder:
        shutil.copytree(data, folder)
        for stem in _unlabeled(data):
            path = folder / "SegmentationClass" / f"{stem}.png"
            with Image.open(path) as mask:
                palette = mask.getpalette()
            likeliest = Image.fromarray(np.load(answers / f"{stem}.npy").argmax(axis=0).astype(np.uint8), "P")
            assert palette is not None  # noqa: S101  # VOC's masks have one
            likeliest.putpalette(palette)
            likeliest.save(path)


def judge_answers(data: Path, answers: Path) -> dict[str, dict[str, float]]:
    """Score the teacher's answers, as the student gets them, against the masks of each part of the data set."""
    from segshrink.evaluation import Confusion

    parts = {
        "150 labelled": _lines(data / LISTS / "labeled.txt"),
        "622 unlabelled": _unlabeled(data),
        "194 of validation": _lines(data / LISTS / "val.txt"),
    }
    found = {}
    for part, stems in parts.items():
        confusion = Confusion(CLASSES)
        for stem in stems:
            with Image.open(data / "SegmentationClass" / f"{stem}.png") as mask:
                confusion.update(np.load(answers / f"{stem}.npy").argmax(axis=0), np.asarray(mask))
        scores = confusion.scores()
        found[part] = {
            "mean_iou": scores.mean_iou,
            "accuracy": scores.accuracy,
            **_background(confusion.matrix),
        }
    return found


def _unlabeled(data: Path) -> list[str]:
    """Return the names of the training images that the student sees without masks."""
    return sorted(set(_lines(data / LISTS / "train.txt")) - set(_lines(data / LISTS / "labeled.txt")))


def _background(matrix: NDArray[np.int64]) -> dict[str, float]:
    """Return shares: of pixels called background, of those that are, of the foreground that is called so."""
    pixels, foreground = matrix.sum(), matrix[1:].sum()
    return {
        "background_predicted": float(matrix[:, 0].sum() / pixels),
        "background_true": float(matrix[0].sum() / pixels),
        "foreground_missed": float(matrix[1:, 0].sum() / foreground),
    }


def run(variant: Variant, seed: int, *, data: Path, given: argparse.Namespace) -> None:
    """Train and evaluate one variant; a finished one is left as it is."""
    from segshrink.config import TeacherSource, load_recipe
    from segshrink.data import open_dataset
    from segshrink.teachers import open_teacher
    from segshrink.training import evaluate_run, train

    folder = given.out / f"{variant.name}-{seed}"
    if (folder / "evaluation.json").exists():
        return
    answers = given.out / f"answers-{given.reduce}"
    if variant.teacher or variant.answered:
        whole = load_recipe(ROOT / "configs" / "voc.yaml", [f"data.root={given.data}"])
        (named,) = whole.distillation.teachers
        source = named.model_copy(update={"source": f"tflite:{given.teacher.resolve()}"})
        teaching = whole.distillation.model_copy(update={"teachers": [source]})
        answer(data, given.data, teaching, open_dataset(whole.data).classes, answers)
    if variant.answered:
        taught = data.with_name(f"{data.name}-answered")
        replace_masks(data, answers, taught)
        data = taught
    overrides = [
        f"seed={seed}",
        f"data.root={data}",
        "data.images=JPEGImages/*.png",
        f"data.split.train={LISTS}/{variant.train}",
        f"crops.size={CROP // given.reduce}",
        f"student.training.epochs={given.epochs}",
        f"student.training.validate_every={max(given.epochs // VALIDATIONS, 1)}",
        f"student.training.threads={given.threads}",
        *([f"data.unlabeled={LISTS}/unlabeled.txt"] if variant.unlabeled else []),
        *variant.settings,
    ]
    recipe = load_recipe(ROOT / "configs" / "voc.yaml", overrides)
    dataset = open_dataset(recipe.data)
    if variant.teacher:
        teacher = open_teacher(TeacherSource(source=f"labels:{answers}"), dataset.classes)
        teacher.name = given.teacher.name
        result = train(recipe, out=folder, role="student", teacher=teacher, dataset=dataset, resume=True)
    else:
        result = train(recipe, out=folder, role="control", dataset=dataset, resume=True)
    evaluate_run(folder, dataset)
    print(f"{folder.name}: val mIoU {result.mean_iou:.3f}, {result.steps} steps, {result.seconds / 60:.1f} min")


def collect(out: Path, reduce: int) -> dict[str, Any]:
    """Return what every finished run reached, and how good the answers are that the student learns from."""
    answers = out / f"answers-{reduce}"
    taught = judge_answers(out / f"data-{reduce}", answers) if answers.exists() else {}
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
        f"Images reduced to 1/{results['reduce']}; teacher: DeepLabv3-MobileNetV2 (TFLite), asked about whole ones "
        f"by tiles of 257 pixels at three zooms, mirrored too; student: separable-unet, {first['parameters']:,} "
        "parameters, random weights at first. Judged on 194 reduced images, every pixel.",
        "",
        "| run | labelled | unlabelled | steps | minutes | mIoU | 95 % interval | accuracy | cross-entropy "
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
    parser.add_argument("--reduce", type=int, default=6, help="images are reduced by this factor")
    parser.add_argument("--only", choices=[variant.name for variant in VARIANTS], action="append", default=None)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=240)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    data = (given.out / f"data-{given.reduce}").resolve()
    prepare(given.data, data, given.reduce)
    for seed in range(given.seeds):
        for variant in VARIANTS:
            if given.only is None or variant.name in given.only:
                run(variant, seed, data=data, given=given)
    results = collect(given.out, given.reduce)
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
