r"""From the Dubai teacher to small files within budgets, measured beside the teacher in one run.

    python benchmarks/compress.py --data ../shared/data/dubai \
        --weights ../shared/weights/mobilenet_v2_imagenet.safetensors

Searches with ``configs/dubai.yaml`` (tiles split) from the teacher that ``benchmarks/dubai.py`` trained, for
budgets that share their trainings and measurements: files twenty and ten times as fast as the teacher in PyTorch fp32,
and one for little memory. Each search ends by measuring its files and the teacher in turns. Writes
``benchmarks/results/compress.json``, ``.md`` and one Pareto plot a budget. Finished trainings are skipped, interrupted
ones go on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segshrink.allocator import restart_with_tuned_allocator
from segshrink.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
# "{20}" is the teacher's latency in PyTorch fp32 divided by 20.
BUDGETS = {
    "twentieth": "latency<={20}ms,size<=600kB,drop<=2.0",
    "tenth": "latency<={10}ms,size<=600kB,drop<=2.0",
    "small": "size<=600kB,memory<=150MB,drop<=2.0",
}
LARGEST_FILE, LEAST_SPEEDUP = 600_000, 20.0
# Points of mIoU.
LARGEST_INT8_DROP, LARGEST_DROP = 0.5, 2.0


def teacher_latency(given: argparse.Namespace) -> float:
    """Return the teacher's milliseconds in PyTorch fp32, measured once, so that budgets stay the same."""
    from segshrink import Job, measure

    store = given.out / f"teacher-{given.size}.json"
    if not store.exists():
        (measured,) = measure([Job(given.teacher, "torch", precision="32", size=given.size)])
        if measured.latency_ms is None:
            raise SystemExit(f"the teacher can't be measured: {measured.error}")
        if measured.load.busy:
            raise SystemExit(f"the teacher's latency can't be trusted: {measured.load.sentence}")
        write_json(store, measured.latency_ms)
    return float(read_json(store)["median"])


def search(given: argparse.Namespace, name: str, budget: str) -> dict[str, Any]:
    """Run one search; a finished one is left as it is. Returns its ``pareto.json``, or why there is none."""
    from segshrink.compression.budget import Budget, UnmetBudgetError
    from segshrink.compression.search import Settings
    from segshrink.config import load_recipe
    from segshrink.workflows.compress import compress

    out = given.out / name
    limits = Budget.parse(budget)
    if not (out / "pareto.json").exists() or read_json(out / "pareto.json")["budget"] != str(limits):
        overrides = [
            f"data.root={given.data.resolve()}",
            "distillation.inherit_encoder=true",
            "student.model.options={}",  # the search finds the recipe's itself
            f"teacher.model.encoder_weights={given.weights.resolve()}",
            f"student.model.encoder_weights={given.weights.resolve()}",
            f"distillation.teachers=[{{source: {given.teacher.resolve()}}}]",
            *given.overrides,
        ]
        runtimes = ("onnxruntime", "openvino") if given.runtime == "both" else (given.runtime,)
        families = tuple(given.families.split(",")) if given.families else None
        settings = Settings(runtimes=runtimes, size=given.size, families=families, candidates=given.candidates)
        recipe = load_recipe(ROOT / "configs" / "dubai.yaml", overrides)
        try:
            compress(recipe, limits, out=out, work=given.out / "work", settings=settings, resume=True)
        except UnmetBudgetError as error:
            print(f"{name}: {error}", flush=True)
            if not (out / "pareto.json").exists():
                return {"budget": str(limits), "unmet": str(error)}
    found: dict[str, Any] = read_json(out / "pareto.json")
    return found


def goals(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the chosen file reached of the goals; without one, of the most accurate int8 file."""
    int8 = [row for row in found["rows"] if row["precision"] == "int8"]
    row = found["chosen"] or max(int8, key=lambda one: float(one["mean_iou"]))
    if row["precision"] != "int8":
        row = next(one for one in int8 if (one["candidate"], one["runtime"]) == (row["candidate"], row["runtime"]))
    own = next(
        one
        for one in found["rows"]
        if one.get("candidate") == row["candidate"] and one["runtime"] == row["runtime"] and one["precision"] == "fp32"
    )
    int8_drop = 100 * (own["mean_iou"] - row["mean_iou"])
    return {
        "file": row["label"],
        "bytes": row["file_bytes"],
        "times_faster_than_teacher": row["times_faster"],
        "points_below_own_fp32": int8_drop,
        "points_below_teacher": row["drop"],
        "met": {
            f"under {LARGEST_FILE // 1000} kB": row["file_bytes"] < LARGEST_FILE,
            f"at least {LEAST_SPEEDUP:g} times as fast": (row["times_faster"] or 0.0) >= LEAST_SPEEDUP,
            f"at most {LARGEST_INT8_DROP} points below its fp32": int8_drop <= LARGEST_INT8_DROP,
            f"at most {LARGEST_DROP} points below the teacher": row["drop"] <= LARGEST_DROP,
        },
    }


def to_markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a Markdown page."""
    from segshrink.compression.search.results import to_markdown as page

    lines = ["# Compressing to a budget: Dubai aerial scenes", "", "Written by `benchmarks/compress.py`.", ""]
    for name, found in results["budgets"].items():
        if "unmet" in found:
            lines += [f"## {name}: {found['budget']}", "", f"Out of reach before any training: {found['unmet']}.", ""]
            continue
        reached = results["goals"][name]
        lines += [
            f"## {name}: {found['budget']}",
            "",
            f"int8 file: {reached['file']}, {reached['bytes']:,} bytes, {reached['times_faster_than_teacher']:.1f} "
            f"times as fast as the teacher in PyTorch fp32, {reached['points_below_own_fp32']:+.2f} points below its "
            f"own fp32, {reached['points_below_teacher']:+.2f} points below the teacher.",
            "",
            *[f"- {goal}: {'met' if met else 'MISSED'}" for goal, met in reached["met"].items()],
            "",
            f"![accuracy over latency](compress-{name}.png)",
            "",
            page(found).replace("\n## ", "\n#### ").replace("# Budget", "### Budget", 1),
        ]
    return "\n".join(lines)


def without(folders: Sequence[str], value: Any) -> Any:
    """Return a result with paths as they are within ``folders``."""
    if isinstance(value, Mapping):
        return {name: without(folders, one) for name, one in value.items()}
    if isinstance(value, list):
        return [without(folders, one) for one in value]
    if isinstance(value, str):
        for folder in folders:
            value = value.replace(f"{folder}/", "")
    return value


def main(arguments: Sequence[str]) -> None:
    """Search for every budget, and write the results of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with 'Tile 2' ...")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet MobileNetV2, safetensors")
    parser.add_argument("--teacher", type=Path, default=ROOT / "runs" / "benchmark-dubai" / "teacher")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmark-compress")
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--budget", action="append", default=None, help="NAME:BUDGET instead of the two of ours")
    parser.add_argument("--runtime", choices=("onnxruntime", "openvino", "both"), default="both")
    parser.add_argument("--families", default=None)
    parser.add_argument("--candidates", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("overrides", nargs="*", help="of the recipe, such as student.training.epochs=1")
    given = parser.parse_args(arguments)
    budgets = dict(text.split(":", 1) for text in given.budget) if given.budget else BUDGETS
    latency = teacher_latency(given)
    for part in (20, 10):
        budgets = {name: text.replace(f"{{{part}}}", f"{latency / part:.1f}") for name, text in budgets.items()}
    found = {name: search(given, name, budget) for name, budget in budgets.items()}
    reached = {name: goals(one) for name, one in found.items() if "unmet" not in one}
    results = {"teacher_latency_ms": latency, "budgets": found, "goals": reached}
    folders = [str(folder.resolve()) for folder in (given.out, given.teacher.parent)]
    write_json(given.results / "compress.json", without(folders, results))
    write_text(given.results / "compress.md", to_markdown(results))
    for name in reached:
        shutil.copyfile(given.out / name / "pareto.png", given.results / f"compress-{name}.png")


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main(sys.argv[1:])
