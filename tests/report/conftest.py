"""Small fake run folders that follow the run folder's file formats, with everything counted from real arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink.report import report as write_report

IGNORE = 255
CLASSES = (
    ("Building", "#3C1098"),
    ("Land", "#8429F6"),
    ("Road", "#6EC1E4"),
    ("Vegetation", "#FEDD3A"),
    ("Water", "#E2A929"),
)
MACHINE = {
    "cpu": "Example CPU 3000",
    "cores": 2,
    "threads": 2,
    "memory_gb": 15.6,
    "torch": "2.15.0",
    "python": "3.11.9",
    "device": "cpu",
    "precision": "bf16",
}
NAMES = {"teacher": "unet-mobilenet", "student": "mobile", "control": "mobile-alone", "model": "model"}
SKILL = {"teacher": 0.85, "control": 0.68, "student": 0.76, "model": 0.8}
PARAMETERS = {"teacher": 6_628_000, "control": 481_200, "student": 481_200, "model": 1_000_000}


@dataclass(frozen=True)
class Options:
    """How a fake run differs from the ordinary one; a class in ``absent`` is in no truth, one in ``dead`` in no map."""

    classes: tuple[tuple[str, str], ...] = CLASSES
    images: int = 12
    size: tuple[int, int] = (60, 45)
    leave_out: tuple[str, ...] = ()
    absent: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()
    blank: tuple[int, ...] = ()
    leaking: bool = False
    name: str | None = None
    data: str = "dubai-aerial"
    status: str = "finished"
    steps: int = 2500
    epochs: int = 20
    cpu: str = "Example CPU 3000"
    half_width: float = 0.04
    load: float = 0.03
    session: str | None = "2025-11-20T12:10:00+00:00"
    slower: float = 1.0
    spread: float = 1.1


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def scene(seed: int, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its truth: blobs of classes from smooth noise, a strip of ignored pixels at the left."""
    rng = np.random.default_rng(seed)
    fields = np.stack([resized(field, options.size) for field in rng.normal(size=(len(options.classes), 6, 8))])
    fields[list(options.absent)] = -np.inf
    truth = np.argmax(fields, axis=0).astype(np.uint8)
    tones = rng.integers(50, 200, size=(len(options.classes), 3))
    image = np.clip(tones[truth] + rng.normal(scale=12, size=(*truth.shape, 3)), 0, 255).astype(np.uint8)
    truth[:, : options.size[0] // 20] = IGNORE
    return image, truth


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    valid = truth != IGNORE
    pairs = truth[valid].astype(int) * classes + prediction[valid]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray) -> dict[str, Any]:
    def listed(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    with np.errstate(invalid="ignore", divide="ignore"):
        hits = matrix.diagonal()
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        recall, precision = hits / matrix.sum(1), hits / matrix.sum(0)
        weighted = float(np.nansum(iou * matrix.sum(1)) / max(matrix.sum(), 1))
        f1 = 2 * precision * recall / (precision + recall)
    judged = matrix.sum() > 0
    return {
        "mean_iou": float(np.nanmean(iou)) if judged else None,
        "mean_accuracy": float(np.nanmean(recall)) if judged else None,
        "accuracy": float(hits.sum() / matrix.sum()) if judged else None,
        "frequency_weighted_iou": weighted if judged else None,
        "kappa": 0.5 if judged else None,
        "iou": listed(iou),
        "precision": listed(precision),
        "recall": listed(recall),
        "f1": listed(f1),
    }


def softened(matrix: np.ndarray) -> list[list[float | None]]:
    """Row shares drawn halfway to even ones; None in rows of absent classes."""
    rows = (matrix + matrix.sum(axis=1, keepdims=True) / len(matrix)) / (
        2 * np.maximum(matrix.sum(1, keepdims=True), 1)
    )
    return [row.tolist() if row.any() else [None] * len(matrix) for row in rows]


def write_pictures(folder: Path, name: str, image: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, str]:
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / "evaluation" / f"{name}.jpg", quality=90)
    pictures = {"image": f"evaluation/{name}.jpg"}
    for kind, index in maps.items():
        picture = Image.fromarray(index)
        picture.putpalette([value for level in range(256) for value in (level, level, level)])
        picture.save(folder / "evaluation" / f"{name}.{kind}.png")
        pictures[kind] = f"evaluation/{name}.{kind}.png"
    return pictures


def judge(folder: Path, role: str, options: Options) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Write the pictures of every image; return the confusion matrix and the entries of ``per_image``."""
    count = len(options.classes)
    total, images = np.zeros((count, count), dtype=int), []
    for number in range(options.images):
        image, truth = scene(number, options)
        if number in options.blank:
            truth[:] = IGNORE
        rng = np.random.default_rng((number, list(SKILL).index(role)))
        other = scene(number + 500, options)[1]
        right = (resized(rng.random((9, 12)), options.size) < SKILL[role]) & (truth != IGNORE)
        prediction = np.where(right, truth, np.where(other == IGNORE, 0, other)).astype(np.uint8)
        for dead in options.dead:
            prediction[prediction == dead] = (dead + 1) % count
        matrix = confusion(truth, prediction, count)
        total += matrix
        own, name = scores(matrix), f"Tile_{number // 6 + 1}-image_part_{number + 1:03d}"
        images.append(
            {
                "name": name,
                "mean_iou": own["mean_iou"],
                "accuracy": own["accuracy"],
                "pixels": int(matrix.sum()),
                "pictures": write_pictures(folder, name, image, {"truth": truth, "prediction": prediction}),
            }
        )
    return total, images


def evaluation(folder: Path, role: str, options: Options) -> dict[str, Any]:
    total, images = judge(folder, role, options)
    found, recall = scores(total), np.linspace(0, 1, 60)
    names = [name for name, _ in options.classes]
    bins = [
        {"confidence": sure, "accuracy": sure - 0.08 * sure**2 * (2 - SKILL[role]), "count": int(10 ** (2 + 4 * sure))}
        for sure in np.linspace(0.25, 0.98, 12)
    ]
    return {
        "segshrink": "0.1.0",
        "date": "2025-11-20T14:30:00+00:00",
        "data": options.data,
        "split": "val",
        "leaking": options.leaking,
        "model": {"name": options.name or NAMES[role], "parameters": PARAMETERS[role]},
        "classes": [{"name": name, "color": color} for name, color in options.classes],
        "images": len(images),
        "pixels": int(total.sum()),
        "scores": found,
        "confusion": total.tolist(),
        "interval": {
            "mean_iou": [found["mean_iou"] - options.half_width, found["mean_iou"] + options.half_width],
            "accuracy": [found["accuracy"] - options.half_width, found["accuracy"] + options.half_width],
            "level": 0.95,
            "resamples": 1000,
        },
        "areas": [
            {"mapped": share, "adjusted": 1.1 * share, "low": 0.9 * share, "high": 1.3 * share}
            for share in (total.sum(axis=0) / total.sum()).tolist()
        ],
        "calibration": {"expected_calibration_error": 0.043, "bins": [*bins, dict.fromkeys(bins[0], None)]},
        "curves": [
            {
                "class": name,
                "average_precision": found["iou"][place],
                "precision": [] if place in options.absent else (1 - (1 - found["iou"][place]) * recall**3).tolist(),
                "recall": [] if place in options.absent else recall.tolist(),
            }
            for place, name in enumerate(names)
        ],
        "pooled_curve": {
            "class": "all classes",
            "average_precision": found["accuracy"],
            "precision": (1 - (1 - found["accuracy"]) * recall**3).tolist(),
            "recall": recall.tolist(),
        },
        "soft_answers": {"temperature": 4.0, "matrix": softened(total)} if role == "teacher" else None,
        "per_image": images,
        "agreement": {"with": "teacher", "accuracy": 0.88, "mean_iou": 0.71} if role == "student" else None,
        "never_predicted": [names[dead] for dead in options.dead],
    }


def metrics(role: str, epochs: int) -> str:
    """``metrics.csv``: validated every other epoch, the cells of the others empty."""
    terms = ["cross_entropy", "pixel_kl"] if role == "student" else ["cross_entropy"]
    train, val = [f"train/{term}" for term in terms], [f"val/{term}" for term in terms]
    lines = [["epoch", "step", "seconds", "learning_rate", "train/loss", *train, "val/loss", *val, "val/mean_iou"]]
    for epoch in range(epochs):
        loss = 0.4 + (2.2 - SKILL[role]) * np.exp(-epoch / 6)
        row = [epoch, 40 * (epoch + 1), 12.5 * (epoch + 1), 1e-3, loss, *(loss for _ in terms)]
        validated = [1.1 * loss, *(1.1 * loss for _ in terms), SKILL[role] * (1 - np.exp(-epoch / 5))]
        lines.append([str(value) for value in row + (validated if epoch % 2 == 0 else [""] * len(validated))])
    return "".join(",".join(line) + "\n" for line in lines)


def write(folder: Path, role: str, options: Options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    machine = {**MACHINE, "cpu": options.cpu}
    weights = PARAMETERS[role]
    run = {
        "role": role,
        "name": options.name or NAMES[role],
        "data": options.data,
        "status": options.status,
        "created": "2025-11-20T12:00:00+00:00",
        "segshrink": "0.1.0",
        "seed": 0,
        "steps": options.steps,
        "epochs": options.epochs,
        "seconds": 612.3,
        "images": {"labeled": 54, "unlabeled": 120 if role == "student" else 0, "val": options.images},
        "machine": machine,
        "teacher": "../teacher" if role == "student" else None,
    }
    profile = {
        "parameters": weights,
        "macs": weights * 2100,
        "input": [1, 3, 512, 512],
        "file_bytes": weights * 4 + 5000,
        "latency_ms": {
            "median": options.slower * weights / 30_000,
            "p95": options.slower * options.spread * weights / 30_000,
            "runs": 20,
            "threads": 1,
        },
        "load": {"others": options.load, "cores": 2, "seconds": 9.0, "busy": options.load >= 0.1},
        "session": options.session,
        "peak_memory_mb": 300 + weights / 20_000,
        "machine": machine,
    }
    contents: dict[str, Callable[[], str]] = {
        "run.json": lambda: json.dumps(run),
        "profile.json": lambda: json.dumps(profile),
        "evaluation.json": lambda: json.dumps(evaluation(folder, role, options), allow_nan=False),
        "metrics.csv": lambda: metrics(role, options.epochs),
    }
    for name, content in contents.items():
        if name not in options.leave_out:
            (folder / name).write_text(content(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """``write_run(folder, role, **options)``: one run folder; options are the fields of ``Options``."""

    def write_one(folder: Path, role: str = "student", **options: Any) -> Path:
        return write(folder, role, Options(**options))

    return write_one


@pytest.fixture(scope="session")
def write_student_run() -> Callable[..., Path]:
    """A student's run folder with its control's and teacher's inside, as ``segshrink distill --control`` leaves it."""

    def write_three(folder: Path, **options: Any) -> Path:
        write(folder, "student", Options(**options))
        write(folder / "control", "control", Options(**options))
        write(folder / "teacher", "teacher", Options(**{"leave_out": ("metrics.csv",), **options}))
        return folder

    return write_three


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory, write_student_run: Callable[..., Path]) -> Path:
    """The page of a full comparison whose names come from a stranger, on a leaking split with a dead class."""
    folder = write_student_run(
        tmp_path_factory.mktemp("hostile"),
        classes=(
            ("<img src=x onerror=alert(1)>", "#3C1098"),
            ("a $x_1$ \"b\" 'c'", "#8429F6"),
            ("Wasser 水", "#6EC1E4"),
        ),
        name="</script><script>document.title='gone'</script>",
        data="data & <b>set</b>",
        leaking=True,
        dead=(2,),
        size=(520, 390),
    )
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["name"] += " 2"  # a name that all share would be left out
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return write_report([folder])
