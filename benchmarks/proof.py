"""Does distillation pay? The plan of all trainings that say so, one cell at a time, and what they say.

    export SEGSHRINK_RUNS=/runs              # outside the checkout: renames and rebases don't disturb it
    python benchmarks/proof.py --plan        # cells, processor hours done and left
    while python benchmarks/proof.py --run; do :; done
    python benchmarks/proof.py --check       # goals, values, intervals, seeds and verdicts; 1 if one is untried

``--run`` takes the next cell, on one thread, and ends with status 0; 1 when there is none that it could take. A cell
that was interrupted goes on from its last epoch. Several processes may run side by side, also on other machines that
see the folder: none takes another's cell. A cell that fails leaves ``failed.txt`` in its folder and is taken again when
that is deleted. After each cell ``results/proof.json`` and ``proof.md`` are written, and weights in half precision
beside them. ``--device cuda`` trains on a GPU, the longest cells first.

Nothing is chosen on what is judged: every training hands over its last state. Equal time means processor seconds of
the training process; those of teachers and of their answers stand apart, as cells of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dubai_overlap import main as write_consensus
from locks import locked
from proof_cells import BUILDINGS, PLACES, VOC, Cell, cells, epochs
from proof_data import write_buildings, write_pool, write_voc
from proof_results import Results, check, plan_table
from segshrink import (
    Dataset,
    Predictor,
    Recipe,
    RunFolder,
    SceneStore,
    Teacher,
    TeacherCache,
    evaluate,
    load_recipe,
    member_recipes,
    open_bank,
    open_dataset,
    open_teachers,
)
from segshrink import train as train_teacher
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.config import distillation_overrides
from segshrink.machine import processor_seconds
from segshrink.teachers.low_precision import in_precision
from segshrink.training import train

ROOT = Path(__file__).resolve().parents[1]
VOC_ROOT = "VOCdevkit/VOC2012"
# Where a recipe's data and weights lie.
PLACED = {
    "dubai": (
        "data.root=DATA/dubai",
        "teacher.model.encoder_weights=WEIGHTS/efficientnet_lite2_imagenet.safetensors",
        "teacher.training.threads=1",
    ),
    "voc": (
        f"data.root=DATA/{VOC_ROOT}",
        "distillation.teachers=[{source: 'tflite:WEIGHTS/deeplabv3_257_mv_gpu.tflite', adapter: {fit: tile, "
        "mean: 127.5, std: 127.5}}, {source: WEIGHTS/espnetv2_s_2.0_pascal_384x384.pth}]",
    ),
}
BORDER = 3
FAILED = "failed.txt"
# Parts of a data set whose answers students learn from, at the working size; others judge at the images' own.
LEARNED = ("train", "unlabeled")


class Proof:
    """The plan on this machine: where runs, data and weights lie."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.runs: Path = given.runs.resolve()
        self.data: Path = given.data.resolve()
        self.weights: Path = given.weights.resolve()
        self.cells = cells(self.runs / "data" / "pool" / "pool.txt")
        self.results = Results(given.results, self.runs, self.cells)

    def recipe(self, cell: Cell) -> Recipe:
        """Return what a cell trains."""
        training = "teacher" if cell.role in ("teacher", "bank", "answers") else "student"
        overrides = [
            f"seed={cell.seed}",
            "student.model.encoder_weights=WEIGHTS/mobilenet_v2_imagenet.safetensors",
            "student.training.threads=1",
            f"distillation.teacher_cache={self.runs / 'answers'}",
            *PLACED[cell.recipe],
            *cell.overrides,
        ]
        overrides = [self.placed(text) for text in overrides]
        if steps := cell.steps or next((c.steps for c in self.cells if c.name == f"{cell.name}/member-0"), 0):
            overrides.append(f"{training}.training.epochs={epochs(steps)}")
        if cell.teacher is not None and cell.recipe == "dubai":
            overrides += distillation_overrides(self.runs / cell.teacher)
        recipe = load_recipe(ROOT / "configs" / f"{cell.recipe}.yaml", overrides)
        return recipe if cell.member is None else member_recipes(recipe, open_dataset(recipe.data))[cell.member]

    @property
    def consensus(self) -> Path:
        """Folder of the masks on which two label sets agree."""
        return self.runs / "data" / "dubai-consensus"

    def prepare(self) -> None:
        """Write the pool and the consensus masks, unless they are there."""
        with locked(self.runs / ".locks" / "data.lock", wait=True):
            pool = write_pool(self.data, self.runs / "data" / "pool")
            for place in PLACES:
                for count, _ in BUILDINGS:
                    write_buildings(self.data / "hot-buildings", place, count, pool)
            for count in (count for count, _ in VOC if count):
                write_voc(self.data / VOC_ROOT, count, pool)
            if not (self.consensus / "dataset.yaml").exists():
                places = ("--data", str(self.data / "dubai"), "--out", str(self.consensus))
                write_consensus([*places, "--results", str(self.results.folder)])

    def placed(self, override: str) -> str:
        """Put the places of this machine into a cell's override."""
        places = {"WEIGHTS": self.weights, "DATA": self.data, "CONFIGS": ROOT / "configs"}
        for name, place in places.items():
            override = override.replace(f"{name}/", f"{place}/")
        return override

    def run_next(self, *, longest_first: bool, only: str) -> Cell | None:
        """Run the next cell that nobody runs, of those whose names begin so; None where there is none."""
        order = [cell for cell in self.results.left(self.cells) if cell.name.startswith(only)]
        if longest_first:
            order = sorted(order, key=lambda cell: -self.results.expected_seconds(cell))
        for cell in order:
            folder = self.runs / cell.name
            if (folder / FAILED).exists() or not self.results.ready(cell):
                continue
            with locked(self.runs / ".locks" / f"{cell.name.replace('/', '-')}.lock") as mine:
                if not mine or self.results.in_folder(cell) is not None:
                    continue
                print(f"{cell.name}: begins", flush=True)
                try:
                    self.run(cell)
                except Exception:  # whatever it is, it is noted, and raised again
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / FAILED).write_text(traceback.format_exc(), encoding="utf-8")
                    raise
                return cell
        return None

    def run(self, cell: Cell) -> None:
        """Train, judge and record a cell."""
        self.prepare()
        recipe, folder = self.recipe(cell), RunFolder(self.runs / cell.name)
        dataset, began = open_dataset(recipe.data), processor_seconds()
        model: Teacher | Path = folder.model
        if cell.role == "bank":
            train_teacher(recipe, out=folder.path, resume=True)
            opened = open_bank(folder.path)
            model = TeacherCache(opened, [SceneStore(dataset.val, dataset.classes)], folder=self.runs / "answers")
        elif cell.role == "answers":
            asked, size = self.answering(recipe, dataset), dataset.description.resize
            learned = [SceneStore(getattr(dataset, part), dataset.classes, resize=size) for part in LEARNED]
            TeacherCache(asked, learned, folder=self.runs / "answers")
            model = TeacherCache(asked, [SceneStore(dataset.val, dataset.classes)], folder=self.runs / "answers")
        else:
            teacher = (lambda: self.teacher(recipe, dataset)) if cell.role == "student" else None
            train(recipe, out=folder.path, role=cell.role, teacher=teacher, dataset=dataset, resume=True)
        reference = self.runs / cell.answers if cell.role == "student" and cell.answers else None
        evaluation = evaluate(
            model, dataset, out=folder.path, name=cell.role, border=BORDER, pictures=0, reference=reference
        )
        consensus = None
        if cell.consensus:
            masks = self.consensus / "dataset.yaml"
            consensus = evaluate(model, masks, out=folder.path / "consensus", border=BORDER, pictures=0)
        spent = folder.run().processor_seconds if folder.has_run and cell.role != "bank" else None
        self.results.record(
            cell,
            evaluation,
            consensus,
            seconds=spent or processor_seconds() - began,
            pool_agreement=self.pool_agreement(recipe, dataset, folder.model) if cell.role == "student" else None,
            weights=folder.model,
        )

    def pool_agreement(self, recipe: Recipe, dataset: Dataset, student: Path) -> float | None:
        """Return the share of pixels of every tenth pool image that a student and its teacher call the same."""
        store = SceneStore(dataset.unlabeled[::10], dataset.classes)
        if not len(store):
            return None
        cache = TeacherCache(self.answering(recipe, dataset), [store], folder=self.runs / "answers")
        predictor, equal, pixels = Predictor(student), 0, 0
        for number in range(len(store)):
            image, valid = np.asarray(store.image(number)), store.valid(number)
            same = predictor.predict_array(image).index == cache.scene_logits(image, store.samples[number].name).argmax(
                0
            )
            inside = np.ones_like(same) if valid is None else np.asarray(valid)
            equal, pixels = equal + int((same & inside).sum()), pixels + int(inside.sum())
        return equal / pixels if pixels else None

    def teacher(self, recipe: Recipe, dataset: Dataset) -> Teacher:
        """Open the teacher that a cell learns from."""
        return open_teachers(recipe.distillation, dataset.classes, bands=dataset.bands)

    def answering(self, recipe: Recipe, dataset: Dataset) -> Teacher:
        """Open the teacher as training asks it, in the recipe's precision."""
        return in_precision(self.teacher(recipe, dataset), recipe.distillation.precision, dataset)


def main(arguments: Sequence[str]) -> int:
    """Show the plan, run a cell, or check the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", action="store_true", help="print cells, and processor hours done and left")
    what.add_argument("--run", action="store_true", help="run the next cell")
    what.add_argument("--check", action="store_true", help="print what the goals came to; status 1 if one is untried")
    home = Path(os.environ.get("SEGSHRINK_RUNS", ROOT.parent / "runs"))
    data = Path(os.environ.get("SEGSHRINK_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--runs", type=Path, default=home, help="run folders; by default $SEGSHRINK_RUNS")
    parser.add_argument("--data", type=Path, default=data, help="data sets; by default $SEGSHRINK_DATA")
    parser.add_argument("--weights", type=Path, default=ROOT.parent / "shared" / "weights", help="ImageNet weights")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", help="run only cells whose names begin so, such as voc/")
    given = parser.parse_args(arguments)
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    proof = Proof(given)
    if given.plan:
        print("\n".join(plan_table(proof.cells, proof.results)))
        return 0
    if given.check:
        lines, tried = check(proof.results)
        print("\n".join(lines))
        return 0 if tried else 1
    done = proof.run_next(longest_first=given.device == "cuda", only=given.only)
    print("nothing to run" if done is None else f"{done.name}: done", flush=True)
    return 1 if done is None else 0


if __name__ == "__main__":
    restart_with_tuned_allocator()
    sys.exit(main(sys.argv[1:]))
