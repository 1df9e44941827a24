"""The commands that ``survival.py`` disturbs: how each starts, goes on, and what has to be equal in the end."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState
from PIL import Image

from segshrink import RunFolder, export, train
from segshrink.study_records import STUDY, TuningRecord
from segshrink.tuning.storage import JOURNAL, open_storage

Result = dict[str, object]
TRAINED, JUDGED, SCENES, SIDE = 4, 2, 40, 64
CLASSES = {"ground": (120, 90, 60), "roof": (200, 40, 40)}


@dataclass(frozen=True)
class Job:
    """A command with ``--out``.

    Attributes:
        arguments: Behind ``segshrink``, in a folder that ``prepare`` made.
        again: What is added to go on.
        result: What an output folder holds that an undisturbed command would hold as well.
        finished: What an output folder holds, whenever, that must be there afterwards.
        trains: Whether it leaves checkpoints.
    """

    arguments: tuple[str, ...]
    again: tuple[str, ...]
    result: Callable[[Path], Result]
    trains: bool = False
    finished: Callable[[Path], Result] = lambda out: {}

    def command(self, out: Path, *, again: bool = False) -> list[str]:
        """Return the whole command line."""
        more = self.again if again else ()
        return [sys.executable, "-m", "segshrink.cli", *self.arguments, "--out", str(out), *more]


def digest(path: Path) -> str:
    """Return a hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path, *patterns: str) -> Result:
    """Return the hashes of all files that match."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    return {str(path.relative_to(folder)): digest(path) for path in found}


def trained(out: Path) -> Result:
    """Weights, scores and metrics but for the seconds of all runs in a folder."""
    runs = {path.parent for path in out.rglob("metrics.csv")}
    result = files(out, "*.safetensors")
    for run in runs:
        rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        result[f"{run.relative_to(out)} metrics"] = [
            {name: value for name, value in row.items() if name != "seconds"} for row in rows
        ]
        result[f"{run.relative_to(out)} mIoU"] = RunFolder(run).evaluation().scores.mean_iou
    return result


def compressed(out: Path) -> Result:
    """Scores and sizes of all files, and the bytes of the chosen one."""
    found = json.loads((out / "pareto.json").read_text())
    rows = {row["label"]: (row["mean_iou"], row["file_bytes"]) for row in found["rows"]}
    return {"rows": rows, "chosen": found["chosen"]["label"], **files(out, "model.onnx")}


def tuned(out: Path) -> Result:
    """How many trials have ended, and the first one's values: what a sampler proposes may depend on which was lost."""
    (study,) = TuningRecord.read(out / STUDY).studies
    states = [trial.state for trial in study.trials]
    return {"ended": len(study.finished), "failed": states.count("fail"), "first": study.trials[0].values}


def finished_trials(out: Path) -> Result:
    """Return what the journal of a study says of each trial that has come to its end."""
    if not (out / JOURNAL).exists() or not (out / JOURNAL).stat().st_size:
        return {}
    with open_storage(out / JOURNAL) as storage:
        trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    return {
        f"trial {trial.number}": (trial.state, trial.values, trial.params, trial.datetime_complete)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    }


def quantized(out: Path) -> Result:
    """The bytes of the graphs, and their scores."""
    found = json.loads((out / "quantization.json").read_text())
    return {**files(out, "*.onnx"), "scores": [one["mean_iou"] for one in found["rows"]]}


def draw(folder: Path, name: str, random: np.random.Generator) -> None:
    """Write a scene of two colors under noise, with its mask."""
    mask = np.full((SIDE, SIDE, 3), CLASSES["ground"], np.uint8)
    row, col = random.integers(0, SIDE // 2, 2)
    mask[row : row + SIDE // 3, col : col + SIDE // 3] = CLASSES["roof"]
    image = np.clip(mask + random.normal(0, 25, mask.shape), 0, 255).astype(np.uint8)
    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def learner(epochs: int) -> dict[str, Any]:
    """A tiny network and how long it is trained."""
    options = {"width": 8, "depth": 2}
    training = {"epochs": epochs, "precision": "32", "threads": 1, "learning_rate": 0.02}
    return {"model": {"id": "unet", "options": options}, "training": training}


def prepare(home: Path) -> dict[str, Job]:
    """Write scenes, a recipe, a teacher and its ONNX file into a folder, where they are missing; return the jobs."""
    recipe, teacher, model = home / "recipe.yaml", home / "teacher", home / "model.onnx"
    if not model.exists():
        random = np.random.default_rng(0)
        for part, count in (("train", TRAINED), ("val", JUDGED), ("archive", SCENES)):
            for number in range(count):
                draw(home / part, f"{part}-{number:02d}", random)
        colors = [{"name": name, "color": "#{:02X}{:02X}{:02X}".format(*color)} for name, color in CLASSES.items()]
        data = {"name": "survival", "root": str(home), "images": "*/images/*.png", "masks": "*/masks/*.png"}
        split = {"train": ["train"], "val": ["val"]}
        crops = {"size": 48, "batch_size": 4, "per_epoch": 16, "workers": 0}
        content = {"name": "survival", "data": {**data, "classes": colors, "split": split}, "crops": crops}
        recipe.write_text(json.dumps({**content, "teacher": learner(3), "student": learner(12)}))
        train(recipe, out=teacher)
        export(teacher, formats=["onnx"], out=model)
    archive = str(home / "archive" / "images")
    taught = ("--teacher", str(teacher), "--no-doctor", "--force", "distillation.teacher_cache=true")
    limits = ("--budget", "drop<=100", "--families", "student", "--size", "64", "--threads", "1")
    return {
        "train": Job(("train", str(recipe), "teacher.training.epochs=12"), ("--resume",), trained, trains=True),
        "train, two loading processes": Job(
            ("train", str(recipe), "teacher.training.epochs=12", "crops.workers=2"), ("--resume",), trained, trains=True
        ),
        "distill with a cache": Job(("distill", str(recipe), *taught), ("--resume",), trained, trains=True),
        "predict": Job(
            ("predict", str(model), archive, "--threads", "1"), (), lambda out: files(out, "*.png", "*.jpg", "*.json")
        ),
        "quantize": Job(("quantize", str(teacher), "--runtime", "onnxruntime"), (), quantized),
        "compress": Job(("compress", str(recipe), "--teacher", str(teacher), *limits), ("--resume",), compressed),
        "tune": Job(
            ("tune", str(recipe), "--trials", "3", "--no-control", "--teacher", str(teacher), "--sampler", "random"),
            ("--resume",),
            tuned,
            finished=finished_trials,
        ),
    }


def environment(home: Path, cache: Path) -> dict[str, str]:
    """Return the environment of a command: one thread, and a cache of its own."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "SEGSHRINK_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
