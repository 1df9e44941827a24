"""Claim: `segshrink labels` finds wrong labels, with Dubai's twice-labeled ground as the answer key.

    pip install cleanlab
    python benchmarks/labels.py --data ../shared/data/dubai --bank /runs/dubai/groups/4-7-8 --name bank

Tiles 7 and 8, and 4 and 8, show the same ground and were labeled apart (``dubai_overlap.py`` finds where). Each label
set of the shared ground is examined with teachers that learned from none of the tiles 4, 7 and 8, and the other one is
the answer key. It is no better, so that no method can be right everywhere. A region counts if most of it lies on
twice-labeled ground, and as right where the other label set says something else than the label on most of that.
``--bank`` takes run folders of banks or single teachers, and may be repeated. Answers are cached, so an interrupted run
goes on; each ``--name`` is a row of ``results/labels.md``. Beside it cleanlab's label quality for segmentation, on the
same probabilities (Lad and Mueller 2023).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import stats

from dubai_overlap import PAIRS, Mosaic, overlap, register
from segshrink import (
    Dataset,
    LabelError,
    SceneStore,
    SelfConfidence,
    TeacherCache,
    find_label_errors,
    label_doubt,
    load_dataset,
    open_dataset,
    open_out_of_fold,
)
from segshrink.data import Scene, scenes
from segshrink.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
EXAMINED = ("Tile 4", "Tile 7", "Tile 8")
OTHERS = ("Tile 2", "Tile 5", "Tile 6")
IGNORED = 255
FIRST = 100

Key = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Judged:
    """A region on twice-labeled ground: whether the other label set contradicts the label, and says the suggestion."""

    error: LabelError
    right: bool
    same_suggestion: bool


def answer_key(dataset: Dataset) -> Key:
    """Return what the other label set says of each examined image, by its name: (H, W), 255 where nothing."""
    mosaics = {tile: Mosaic(dataset, tile) for tile in sorted({tile for pair in PAIRS for tile in pair})}
    others = {tile: np.full(mosaic.labels.shape, IGNORED, np.uint8) for tile, mosaic in mosaics.items()}
    for first, second in PAIRS:
        row, col, _ = register(mosaics[first].image, mosaics[second].image)
        one, other = overlap(mosaics[first].labels.shape, mosaics[second].labels.shape, row, col)
        for tile, place, says in ((first, one, (second, other)), (second, other, (first, one))):
            known = others[tile][place]
            others[tile][place] = np.where(known == IGNORED, mosaics[says[0]].labels[says[1]], known)
    return {
        sample.name: others[tile][place]
        for tile, mosaic in mosaics.items()
        for sample, place in zip(mosaic.samples, mosaic.places, strict=True)
    }


def judge(error: LabelError, key: NDArray[np.uint8], names: Sequence[str]) -> Judged | None:
    """Judge a region by the other label set; None where that says nothing of most of it."""
    shape = error.polygon.__geo_interface__
    inside = rasterize([(shape, 1)], out_shape=key.shape, dtype="uint8").astype(bool)
    other = key[inside & (key != IGNORED)]
    if 2 * other.size < inside.sum():
        return None
    differs, says = other != names.index(error.label), other == names.index(error.suggestion)
    return Judged(error, bool(2 * differs.sum() > other.size), bool(2 * says.sum() > other.size))


def auroc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Return the chance that a positive has a higher score than a negative, ties counting half."""
    ranks = stats.rankdata(scores)
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def pixel_scores(scene: Scene, probabilities: NDArray[np.float32], thresholds: NDArray[np.float32]) -> dict[str, Any]:
    """Return by method how doubtful each pixel's label is, (H, W)."""
    from cleanlab.segmentation.rank import get_label_quality_scores

    labels = np.where(scene.target == IGNORED, 0, scene.target).astype(np.int64)
    _, quality = get_label_quality_scores(labels[np.newaxis], probabilities[np.newaxis], verbose=False)
    return {
        "segshrink": label_doubt(probabilities, scene.target, thresholds),
        "cleanlab": 1 - quality[0],
    }


def pixel_aurocs(answers: TeacherCache, store: SceneStore, key: Key) -> dict[str, float]:
    """Return by method how well it ranks pixels whose label the other label set contradicts."""
    confidence = SelfConfidence(len(store.classes))
    for scene in scenes(store):
        confidence.update(answers.predict_scene(scene).probabilities, scene.target)
    thresholds = confidence.thresholds()
    scored: dict[str, list[NDArray[Any]]] = {}
    wrong = []
    for scene in scenes(store):
        twice = (scene.target != IGNORED) & (key[scene.name] != IGNORED)
        if not twice.any():
            continue
        wrong.append((scene.target != key[scene.name])[twice])
        probabilities = answers.predict_scene(scene).probabilities
        for name, values in pixel_scores(scene, probabilities, thresholds).items():
            scored.setdefault(name, []).append(values[twice])
    positive = np.concatenate(wrong)
    return {name: auroc(np.concatenate(values), positive) for name, values in scored.items()} | {
        "pixels": int(positive.size),
        "contradicted": float(positive.mean()),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure one set of teachers and write its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with 'Tile 2' ...")
    parser.add_argument("--bank", type=Path, action="append", required=True, help="run folder of a bank or a teacher")
    parser.add_argument("--name", required=True, help="what the row is called")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)
    root = f"root={given.data.resolve()}"
    key = answer_key(open_dataset(load_dataset(ROOT / "configs/data/dubai.yaml", [root])))
    split = [f"split.train={json.dumps(OTHERS)}", f"split.val={json.dumps(EXAMINED)}"]
    description = load_dataset(ROOT / "configs/data/dubai.yaml", [root, *split])
    dataset = open_dataset(description)
    found = find_label_errors(description, given.bank, split="val")
    judged = [judge(error, key[error.image], dataset.classes.names) for error in found.errors]
    first = [region for region in judged if region is not None][:FIRST]
    teacher, kept = open_out_of_fold(given.bank, dataset, dataset.val)
    store = SceneStore(kept, dataset.classes)
    row = {
        "name": given.name,
        "banks": [bank.name for bank in given.bank],
        "images": len(kept),
        "regions": sum(region is not None for region in judged),
        "judged": len(first),
        "precision": float(np.mean([region.right for region in first])) if first else None,
        "suggestion_precision": float(np.mean([region.same_suggestion for region in first])) if first else None,
        "auroc": pixel_aurocs(TeacherCache(teacher, [store]), store, key),
    }
    write_results(row, given.results)


def write_results(row: dict[str, Any], results: Path) -> None:
    """Put a row into the results, in the place of an earlier one of its name."""
    path = results / "labels.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = [*(other for other in rows if other["name"] != row["name"]), row]
    write_json(path, {"rows": rows})
    lines = [
        "# Labels that teachers contradict, judged by a second label set",
        "",
        "Written by `benchmarks/labels.py`, which says what is measured. The AUROCs are of pixels; goals: precision of "
        "0.60 in the first 100 regions, AUROC of 0.75 and 0.03 above cleanlab's.",
        "",
        "| teachers | images | regions | judged | contradicted by the other label set | which says the suggestion "
        "| pixels contradicted | AUROC | cleanlab's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        precisions = [
            "" if each[name] is None else f"{each[name]:.2f}" for name in ("precision", "suggestion_precision")
        ]
        pixels = each["auroc"]
        values = [each["name"], each["images"], each["regions"], each["judged"], *precisions]
        shares = [f"{pixels[name]:.3f}" for name in ("contradicted", "segshrink", "cleanlab")]
        lines.append(f"| {' | '.join(map(str, [*values, *shares]))} |")
    write_text(results / "labels.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
