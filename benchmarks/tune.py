"""Claim: a tuned student beats its default by at least a point of mIoU, and so the tuned control.

    python benchmarks/tune.py --data ../shared/data/dubai --weights ../shared/weights

One teacher and all trials train on tiles 4, 7 and 8 and are judged on tile 6; student and control get as many trials.
Then default and best of both train with three new seeds and more steps; tiles 2 and 5, which nothing before has seen,
are read once, at the end. Every stage lies under ``--out``: what is finished is not done again, what was interrupted
is resumed. ``--recipe`` takes another recipe, whose data have a test split, and further arguments override it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segshrink import DatasetDescription, RunFolder, __version__, distill, evaluate, load_recipe, train, tune
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.config import load_open_recipe
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine
from segshrink.study_records import TuningRecord
from segshrink.tuning import Settings

ROOT = Path(__file__).resolve().parents[1]
SPLIT = "{train: [Tile 4, Tile 7, Tile 8], val: [Tile 6], test: [Tile 2, Tile 5]}"
# Open for student and control alike, and what only one of them uses.
SPACE = (
    "student.training.learning_rate={log: [5e-4, 1e-2]}",
    "student.training.weight_decay={log: [1e-3, 0.2]}",
    "crops.rare_class_share={uniform: [0, 0.5]}",
    "augmentation.noise={uniform: [0, 0.1]}",
    "student.terms.1.weight={uniform: [0, 3]}",
    "distillation.terms.1.weight={uniform: [0, 1]}",
    "distillation.terms.2.weight={uniform: [0, 2]}",
    "distillation.terms.3.weight={uniform: [0, 1]}",
)
GOAL = 1.0
IMAGENET = {"teacher": "efficientnet_lite2_imagenet.safetensors", "student": "mobilenet_v2_imagenet.safetensors"}


def finals(given: argparse.Namespace, recipes: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Train default and best of both roles with every seed, and score each on the test split once."""
    for name, path in recipes.items():
        for seed in given.seeds:
            out = given.out / "final" / f"{name.replace(' ', '-')}-{seed}"
            recipe = load_recipe(path, [f"seed={seed}", *overrides_of(given, epochs=given.final_epochs)])
            if name.endswith("control"):
                train(recipe, out=out, control=True, resume=True)
            else:
                distill(recipe, out=out, teacher=given.out / "teacher", doctor=False, resume=True)
            test = out / "test"
            if not RunFolder(test).has_evaluation:
                evaluate(out, description(given), "test", out=test)
            record = RunFolder(out).run()
            scores = RunFolder(test).evaluation().scores
            yield {
                "name": name,
                "seed": seed,
                "steps": record.steps,
                "val": record.best_mean_iou,
                "test": scores.mean_iou,
            }


def overrides_of(given: argparse.Namespace, *, epochs: int) -> list[str]:
    """Return what differs from the recipe's file in every training of students."""
    every = max(1, epochs // 10)
    length = [f"student.training.epochs={epochs}", f"student.training.validate_every={every}"]
    return [*given.common, *length, f"student.training.threads={given.threads}"]


def description(given: argparse.Namespace) -> DatasetDescription:
    """Return the data set."""
    return load_recipe(given.recipe, given.common).data


def to_markdown(content: dict[str, Any]) -> str:
    """Return the results as a page."""
    lines = [
        "# Tuned against untuned",
        "",
        f"{content['trials']} trials of {content['trial_steps']} steps for each of student and control, chosen by the "
        f"validation split; then {len(content['seeds'])} new seeds of {content['final_steps']} steps, judged once on "
        f"the test split of {content['data']}. segshrink {content['segshrink']}, {content['machine']['cpu']}.",
        "",
        "| | validation mIoU | test mIoU | by seed |",
        "|---|---|---|---|",
    ]
    for name, row in content["rows"].items():
        spread = ", ".join(f"{score:.3f}" for score in row["test"])
        lines.append(f"| {name} | {statistics.mean(row['val']):.3f} | {statistics.mean(row['test']):.3f} | {spread} |")
    for role, gain in content["gain"].items():
        lines += ["", f"The tuned {role} is {gain:+.1f} points from its default."]
    met = "met" if content["gain"]["student"] >= GOAL else "missed"
    lines += ["", f"Goal, a student at least {GOAL} point above its default: {met}.", ""]
    for role, params in content["best"].items():
        lines += [f"Best {role}: " + ", ".join(f"`{place}` {value:.4g}" for place, value in params.items()) + ".", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Run what is not finished, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with 'Tile 2' ...")
    parser.add_argument("--weights", type=Path, help="folder of ImageNet's weights; by default a package or a hub")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs" / "dubai.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmark-tune")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--trial-epochs", type=int, default=14, help="of 74 steps")
    parser.add_argument("--final-epochs", type=int, default=55)
    parser.add_argument("--seeds", type=lambda text: [*map(int, text.split(","))], default=[101, 102, 103])
    parser.add_argument("--threads", type=int, default=1, help="threads of each training")
    parser.add_argument("--workers", type=int, default=1, help="trials side by side")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    given.common = [f"teacher.training.threads={given.threads}", *given.overrides]
    if given.data is not None:
        given.common += [f"data.root={given.data.resolve()}", f"data.split={SPLIT}"]
    if given.weights is not None:
        for role, file in IMAGENET.items():
            given.common.append(f"{role}.model.encoder_weights={given.weights.resolve() / file}")
    train(load_recipe(given.recipe, given.common), out=given.out / "teacher", resume=True)
    teacher = f"distillation.teachers=[{{source: '{(given.out / 'teacher').resolve()}'}}]"
    common = [*overrides_of(given, epochs=given.trial_epochs), teacher]
    recipe, space = load_open_recipe(given.recipe, [*common, *SPACE])
    settings = Settings(trials=given.trials)
    study = given.out / "study"
    tuned = tune(recipe, out=study, space=space, settings=settings, workers=given.workers, resume=True)
    recipes = {"default student": given.recipe, "best student": tuned.recipes["student"]}
    recipes |= {"default control": given.recipe, "best control": tuned.recipes["control"]}
    results = list(finals(given, recipes))
    rows = {
        name: {key: [row[key] for row in results if row["name"] == name] for key in ("seed", "val", "test", "steps")}
        for name in recipes
    }
    means = {name: statistics.mean(row["test"]) for name, row in rows.items()}
    best = {role: each.trial(each.best) for role, each in tuned.studies.items()}
    content = {
        "segshrink": __version__,
        "machine": describe_machine(threads=given.threads),
        "data": recipe.data.name,
        "trials": given.trials,
        "trial_steps": RunFolder(study / "student" / "0000").run().steps,
        "final_steps": rows["best student"]["steps"][0],
        "seeds": given.seeds,
        "rows": rows,
        "gain": {role: 100 * (means[f"best {role}"] - means[f"default {role}"]) for role in ("student", "control")},
        "best": {role: trial.params for role, trial in best.items() if trial is not None},
        "study": TuningRecord.read(study / "study.json").to_json(),
    }
    write_json(given.results / "tune.json", content, overwrite=False)
    write_text(given.results / "tune.md", to_markdown(content), overwrite=False)


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
