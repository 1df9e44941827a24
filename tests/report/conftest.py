"""Small fake run folders that follow the run folder's file formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
SKILL = {"teacher": 0.85, "control": 0.68, "student": 0.76, "model": 0.8}
PARAMETERS = {"teacher": 6_628_000, "control": 481_200, "student": 481_200, "model": 1_000_000}


def scene(index: int, height: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its truth: blobs of classes from smooth noise, a strip of ignored pixels."""
    rng = np.random.default_rng(index)
    coarse = rng.normal(size=(classes, 6, 8))
    fields = [
        np.asarray(Image.fromarray(field.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
        for field in coarse
    ]
    truth = np.argmax(fields, axis=0).astype(np.uint8)
    tones = rng.integers(50, 200, size=(classes, 3))
    image = np.clip(tones[truth] + rng.normal(scale=12, size=(height, width, 3)), 0, 255).astype(np.uint8)
    truth[:, : width // 20] = 255
    return image, truth


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    valid = truth != 255
    return np.bincount(truth[valid].astype(int) * classes + prediction[valid], minlength=classes**2).reshape(
        classes, classes
    )


def scores(matrix: np.ndarray) -> dict[str, Any]:
    with np.errstate(invalid="ignore", divide="ignore"):
        hits = matrix.diagonal()
        iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
        recall = hits / matrix.sum(1)
        precision = hits / matrix.sum(0)
    listed = lambda values: [None if np.isnan(v) else float(v) for v in values]  # noqa: E731
    return {
        "mean_iou": float(np.nanmean(iou)),
        "mean_accuracy": float(np.nanmean(recall)),
        "accuracy": float(hits.sum() / matrix.sum()),
        "frequency_weighted_iou": float(np.nansum(iou * matrix.sum(1)) / matrix.sum()),
        "kappa": 0.5,
        "iou": listed(iou),
        "precision": listed(precision),
        "recall": listed(recall),
        "f1": listed(2 * precision * recall / (precision + recall)),
    }


def write_pictures(folder: Path, name: str, image: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, str]:
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / "evaluation" / f"{name}.jpg", quality=85)
    pictures = {"image": f"evaluation/{name}.jpg"}
    for kind, index in maps.items():
        picture = Image.fromarray(index)
        picture.putpalette([value for i in range(256) for value in (i, i, i)])
        picture.save(folder / "evaluation" / f"{name}.{kind}.png")
        pictures[kind] = f"evaluation/{name}.{kind}.png"
    return pictures


def evaluation(folder: Path, role: str, options: dict[str, Any]) -> dict[str, Any]:
    classes = options.get("classes", CLASSES)
    count = len(classes)
    width, height = options.get("size", (120, 90))
    total = np.zeros((count, count), dtype=int)
    images = []
    for number in range(options.get("images", 12)):
        image, truth = scene(number, height, width, count)
        rng = np.random.default_rng((number, list(SKILL).index(role)))
        wrong = np.asarray(
            Image.fromarray(rng.random((9, 12)).astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        )
        other = scene(number + 500, height, width, count)[1]
        other[other == 255] = 0
        prediction = np.where((wrong < SKILL[role]) & (truth != 255), truth, other).astype(np.uint8)
        for dead in options.get("dead", ()):
            prediction[prediction == dead] = 1
        matrix = confusion(truth, prediction, count)
        total += matrix
        name = f"Tile_{number // 6 + 1}-image_part_{number + 1:03d}"
        pictures = write_pictures(folder, name, image, {"truth": truth, "prediction": prediction})
        own = scores(matrix)
        images.append(
            {
                "name": name,
                "mean_iou": own["mean_iou"],
                "accuracy": own["accuracy"],
                "pixels": int(matrix.sum()),
                "pictures": pictures,
            }
        )
    found = scores(total)
    recall = np.linspace(0, 1, 60)
    middle = found["mean_iou"]
    return {
        "segshrink": "0.1.0",
        "date": "2025-11-20T14:30:00+00:00",
        "data": options.get("data", "dubai-aerial"),
        "split": "val",
        "leaking": options.get("leaking", False),
        "model": {"name": options.get("name", role), "parameters": PARAMETERS[role]},
        "classes": [{"name": name, "color": color} for name, color in classes],
        "images": len(images),
        "pixels": int(total.sum()),
        "scores": found,
        "confusion": total.tolist(),
        "interval": {"mean_iou": [middle - 0.04, middle + 0.035], "level": 0.95, "resamples": 1000},
        "calibration": {
            "expected_calibration_error": 0.043,
            "bins": [
                {"confidence": c, "accuracy": c - 0.08 * c * c, "count": int(10 ** (2 + 4 * c))}
                for c in np.linspace(0.25, 0.98, 12)
            ],
        },
        "curves": [
            {
                "class": name,
                "average_precision": found["iou"][i],
                "precision": (1 - (1 - (found["iou"][i] or 0)) * recall**3).tolist(),
                "recall": recall.tolist(),
            }
            for i, (name, _) in enumerate(classes)
        ],
        "per_image": images,
        "agreement": None if role != "student" else {"with": "teacher", "accuracy": 0.88, "mean_iou": 0.71},
        "never_predicted": [classes[dead][0] for dead in options.get("dead", ())],
    }


def metrics(role: str, epochs: int) -> str:
    terms = ["cross_entropy", "pixel_kl"] if role == "student" else ["cross_entropy"]
    header = [
        "epoch",
        "step",
        "seconds",
        "learning_rate",
        "train/loss",
        *(f"train/{t}" for t in terms),
        "val/loss",
        *(f"val/{t}" for t in terms),
        "val/mean_iou",
    ]
    lines = [",".join(header)]
    for epoch in range(epochs):
        fall = 0.4 + 1.2 * np.exp(-epoch / 6)
        measured = epoch % 2 == 0
        values = [
            epoch,
            40 * (epoch + 1),
            12.5 * (epoch + 1),
            1e-3,
            fall,
            *(fall * (i + 1) / 2 for i in range(len(terms))),
        ]
        values += [
            v if measured else ""
            for v in (fall * 1.1, *(fall * 1.1 for _ in terms), SKILL[role] * (1 - np.exp(-epoch / 5)))
        ]
        lines.append(",".join(str(v) for v in values))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """``write_run(folder, role, **options)``: options leave_out, classes, images, size, leaking, dead, name, data, epochs."""

    def write(folder: Path, role: str = "student", leave_out: tuple[str, ...] = (), **options: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        run = {
            "role": role,
            "name": options.get(
                "name", {"teacher": "unet-mobilenet", "student": "mobile", "control": "mobile-alone"}.get(role, role)
            ),
            "data": options.get("data", "dubai-aerial"),
            "status": options.get("status", "finished"),
            "created": "2025-11-20T12:00:00+00:00",
            "segshrink": "0.1.0",
            "seed": 0,
            "steps": 2500,
            "epochs": 20,
            "seconds": 612.3,
            "images": {"labeled": 54, "unlabeled": 120 if role == "student" else 0, "val": 18},
            "machine": MACHINE,
            "teacher": None,
        }
        profile = {
            "parameters": PARAMETERS[role],
            "macs": PARAMETERS[role] * 2100,
            "input": [1, 3, 512, 512],
            "file_bytes": PARAMETERS[role] * 4 + 5000,
            "latency_ms": {
                "median": PARAMETERS[role] / 30_000,
                "p95": PARAMETERS[role] / 27_000,
                "runs": 20,
                "threads": 1,
            },
            "peak_memory_mb": 300 + PARAMETERS[role] / 20_000,
            "machine": MACHINE,
        }
        if "run.json" not in leave_out:
            (folder / "run.json").write_text(json.dumps(run))
        if "profile.json" not in leave_out:
            (folder / "profile.json").write_text(json.dumps(profile))
        if "evaluation.json" not in leave_out:
            (folder / "evaluation.json").write_text(json.dumps(evaluation(folder, role, options), allow_nan=False))
        if "metrics.csv" not in leave_out:
            (folder / "metrics.csv").write_text(metrics(role, options.get("epochs", 20)))
        return folder

    return write


@pytest.fixture(scope="session")
def write_student_run(write_run: Callable[..., Path]) -> Callable[..., Path]:
    """A student's run folder with its control's and teacher's inside, as ``segshrink distill --control`` leaves it."""

    def write(folder: Path, **options: Any) -> Path:
        write_run(folder, "student", **options)
        write_run(folder / "control", "control", **options)
        write_run(folder / "teacher", "teacher", **{"leave_out": ("metrics.csv",), **options})
        return folder

    return write
