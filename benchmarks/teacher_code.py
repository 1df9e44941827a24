"""Claim: cached in one byte a class, a teacher teaches what it teaches exactly, and reading it costs next to nothing.

    python benchmarks/teacher_code.py                  # ten minutes on one core; results beside the scripts
    python benchmarks/teacher_code.py --teacher RUN    # look at the answers of that run's model on its data, too

- ``divergence``: mean KL from a teacher's exact class distributions to those after coding, at temperatures 1 and 4, and
  the share of pixels whose likeliest class stays it. Next to our code stand those that one might have taken: float16
  (two bytes), steps of 1/8 below the pixel's highest logit, and 255 even steps over the scene's or each class's range.
  Teachers: one trained here on synthetic scenes, smooth random logits of several spreads, and the run asked for.
- ``zoom``: the same for crops that are enlarged or shrunk. We average bytes; the reference averages exact logits. How
  far that lies from averaging exact probabilities, which has as good a claim to be right, stands beside it.
- ``students``: the mIoU of students that learn from exact and from coded answers alone, same seeds, on scenes that are
  so small and few that chance shows.
- ``reading``: processor time of cutting and decoding the answers of 8 random crops of 256 pixels, zoomed, mirrored and
  turned, beside that of a training step of ``mobile``, on one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segshrink.config import Recipe, load_dataset
from segshrink.data import CropPlan, SceneStore, cut, open_dataset, plan_crop, write_scenes
from segshrink.files import write_json, write_text
from segshrink.machine import describe_machine
from segshrink.models import build_model
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, TeacherCache, open_teacher
from segshrink.teachers.cache_quantization import decode, encode
from segshrink.training import train

RESULTS = Path(__file__).resolve().parent / "results"
TEMPERATURES = (1.0, 4.0)
SEEDS = (0, 1, 2)
Code = Callable[[Tensor], Tensor]


def ours(logits: Tensor) -> Tensor:
    """Roots of gaps in a byte, as the cache keeps them."""
    return decode(torch.from_numpy(encode(logits.numpy())).permute(2, 0, 1)[None])[0]


def eighths(logits: Tensor) -> Tensor:
    """Gaps in steps of 1/8, up to 31.875."""
    gaps = logits.amax(dim=0) - logits
    return -(gaps * 8).round().clamp(max=255) / 8


def even_steps(logits: Tensor, *, by: tuple[int, ...]) -> Tensor:
    """255 even steps from the lowest to the highest logit over the dimensions ``by``."""
    low, high = logits.amin(dim=by, keepdim=True), logits.amax(dim=by, keepdim=True)
    return ((logits - low) / (high - low) * 255).round() / 255 * (high - low) + low


CODES: dict[str, Code] = {
    "ours": ours,
    "steps of 1/8": eighths,
    "even steps, by scene": lambda logits: even_steps(logits, by=(0, 1, 2)),
    "even steps, by class": lambda logits: even_steps(logits, by=(1, 2)),
    "float16": lambda logits: logits.half().float(),
}


class ExactAnswers(TeacherCache):
    """Stands where the cache stands, with the exact logits."""

    def __init__(self, teacher: Teacher, stores: Sequence[SceneStore], **_: Any) -> None:
        Teacher.__init__(self, teacher.classes, known=teacher.known, name=teacher.name)
        self._logits = [channels_last(logits) for store in stores for logits in answers(teacher, store)]

    def codes(self, index: int) -> NDArray[Any]:
        """Return exact logits (H, W, C)."""
        return self._logits[index]

    def decode(self, codes: Tensor) -> Tensor:
        """Return them as they are."""
        return codes


def answers(teacher: Teacher, store: SceneStore) -> list[NDArray[np.float32]]:
    """Return the teacher's logits (C, H, W) about every scene."""
    numbers = range(len(store))
    return [teacher.scene_logits(np.asarray(store.image(n)), store.samples[n].name) for n in numbers]


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, C) for (C, H, W)."""
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def divergence(exact: Tensor, other: Tensor, temperature: float) -> float:
    """Return the mean KL divergence of the class distributions of logits (C, H, W)."""
    p, q = (F.log_softmax(logits.double() / temperature, dim=0) for logits in (exact, other))
    return float((p.exp() * (p - q)).sum(dim=0).mean())


def divergences(scenes: Sequence[Tensor]) -> dict[str, Any]:
    """Return, for each code, divergence by temperature and the share of likeliest classes that stay, over scenes."""
    found: dict[str, Any] = {}
    for name, code in CODES.items():
        pairs = [(scene, code(scene)) for scene in scenes]
        found[name] = {
            f"T={temperature:g}": statistics.fmean(divergence(*pair, temperature) for pair in pairs)
            for temperature in TEMPERATURES
        }
        kept = [(exact.argmax(dim=0) == other.argmax(dim=0)).double().mean() for exact, other in pairs]
        found[name]["likeliest kept"] = float(torch.stack(kept).mean())
    return found


def smooth_logits(spread: float, *, classes: int) -> Tensor:
    """Return random logits (C, 384, 384) with that standard deviation, smooth over some ten pixels."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, 38, 38, generator=generator)
    return F.interpolate(coarse, size=(384, 384), mode="bicubic")[0] * spread


def zoomed(scenes: Sequence[Tensor]) -> dict[str, Any]:
    """Return divergences of whole-scene crops at three zooms: bytes, and probabilities, averaged instead of logits."""
    found = {}
    for zoom in (0.5, 0.75, 1.5):
        ratios: dict[str, float] = {}
        for temperature in TEMPERATURES:
            pairs: list[tuple[float, float]] = []
            for scene in scenes:
                side = min(scene.shape[1:])
                plan = CropPlan(0, 0, 0, side, side, round(side * zoom))
                exact = planes(cut(channels_last(scene.numpy()), plan))
                coded = decode(planes(cut(encode(scene.numpy()), plan))[None])[0]
                soft = F.softmax(scene / temperature, dim=0).numpy()
                likely = planes(cut(channels_last(soft), plan)).clamp_min(1e-12).log() * temperature
                pairs.append((divergence(exact, coded, temperature), divergence(exact, likely, temperature)))
            ratios[f"bytes, T={temperature:g}"] = statistics.fmean(pair[0] for pair in pairs)
            ratios[f"probabilities, T={temperature:g}"] = statistics.fmean(pair[1] for pair in pairs)
        found[f"{zoom:g}"] = ratios
    return found


def planes(array: NDArray[Any]) -> Tensor:
    """Return (C, H, W) for (H, W, C)."""
    return torch.from_numpy(array).permute(2, 0, 1)


def recipe_in(folder: Path) -> Recipe:
    """Return a recipe on small synthetic scenes, whose student learns from the teacher alone."""
    description = write_scenes(folder / "scenes", train=8, val=6, unlabeled=16, size=256)
    training = {"epochs": 24, "learning_rate": 0.004, "threads": 1, "validate_every": 4}
    return Recipe.model_validate(
        {
            "data": load_dataset(description).model_dump(mode="json"),
            "crops": {"size": 128, "batch_size": 8, "per_epoch": 64},
            "teacher": {"model": {"id": "unet", "options": {"width": 16, "depth": 4}}, "training": training},
            "student": {"model": {"id": "unet", "options": {"width": 8, "depth": 3}}, "training": training},
            "distillation": {"alpha": 0, "temperature": 2, "teacher_cache": True},
        }
    )


def students(recipe: Recipe, teacher: Path, out: Path) -> dict[str, list[float]]:
    """Return the mIoU of students of exact and of coded answers, by seed."""
    classes = open_dataset(recipe.data).classes
    found: dict[str, list[float]] = {"exact": [], "coded": []}
    for seed in SEEDS:
        seeded = recipe.model_copy(update={"seed": seed})
        for kind, cache in (("exact", ExactAnswers), ("coded", TeacherCache)):
            with patch("segshrink.training.run.TeacherCache", cache):
                opened = open_teacher(str(teacher), classes)
                result = train(seeded, out=out / f"{kind}-{seed}", role="student", teacher=opened)
            found[kind].append(result.mean_iou)
            print(f"student of {kind} answers, seed {seed}: mIoU {result.mean_iou:.4f}", flush=True)
    return found


def reading(classes: int) -> dict[str, float]:
    """Return processor milliseconds of the answers of 8 random crops, and of a training step of ``mobile`` on them."""
    codes = encode(torch.cat([smooth_logits(4.0, classes=classes)] * 2, dim=1).numpy())
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {"size": 256, "scale": (0.5, 2.0), "flips": True, "quarter_turns": True}

    def read() -> Tensor:
        plans = [plan_crop(rng, 0, shape=(codes.shape[0], codes.shape[1]), **settings) for _ in range(8)]
        crops = np.stack([cut(codes, plan) for plan in plans])
        return decode(torch.from_numpy(crops).permute(0, 3, 1, 2))

    names = [(f"class {number}", None, None) for number in range(classes)]
    from segshrink.classes import ClassMap

    model = build_model("mobile", ClassMap.build(names)).train().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (8, 3, 256, 256), dtype=torch.uint8)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), read().softmax(dim=1))
        loss.backward()  # type: ignore[no-untyped-call]

    return {"answers of 8 crops": processor_ms(read, 40), "training step": processor_ms(step, 5)}


def processor_ms(function: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of a call."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def measure(work: Path, run: Path | None) -> dict[str, Any]:
    """Measure everything."""
    recipe = recipe_in(work)
    result = train(recipe, out=work / "teacher", role="teacher")
    print(f"teacher: mIoU {result.mean_iou:.3f}", flush=True)
    scenes = {"synthetic scenes": val_answers(work / "teacher")}
    if run is not None:
        scenes[RunFolder(run).recipe().name] = val_answers(run)
    for classes, spread in ((2, 4.0), (6, 1.0), (6, 4.0), (6, 10.0), (21, 4.0), (21, 25.0)):
        scenes[f"random, {classes} classes, spread {spread:g}"] = [smooth_logits(spread, classes=classes)]
    return {
        "divergence": {name: divergences(logits) for name, logits in scenes.items()},
        "zoom": {name: zoomed(logits) for name, logits in scenes.items() if not name.startswith("random")},
        "teacher": result.mean_iou,
        "students": students(recipe, work / "teacher", work / "students"),
        "reading": reading(classes=6),
    }


def val_answers(run: Path) -> list[Tensor]:
    """Return a run's logits about at most six of its own validation scenes."""
    dataset = open_dataset(RunFolder(run).recipe().data)
    store = SceneStore(dataset.val[:6], dataset.classes)
    return [torch.from_numpy(logits) for logits in answers(open_teacher(str(run), dataset.classes), store)]


def as_markdown(record: dict[str, Any]) -> str:
    """Return the tables that go beside the numbers."""
    machine = record["machine"]
    lines = ["# What a byte a class costs", ""]
    lines.append(
        f"{record['created'][:10]}, {machine['cpu']}, torch {machine['torch']}. `python benchmarks/teacher_code.py` "
        "measures it again."
    )
    lines.append("")
    columns = [*(f"T={temperature:g}" for temperature in TEMPERATURES), "likeliest kept"]
    lines += ["| answers | code | KL, T=1 | KL, T=4 | likeliest class kept |", "|---|---|---:|---:|---:|"]
    for name, codes in record["divergence"].items():
        for code, row in codes.items():
            first, second, kept = (row[column] for column in columns)
            lines.append(f"| {name} | {code} | {first:.1e} | {second:.1e} | {100 * kept:.2f} % |")
    lines += ["", "KL from zoomed exact logits to zoomed bytes, and to zoomed probabilities:", ""]
    lines += ["| answers | zoom | bytes, T=1 | T=4 | probabilities, T=1 | T=4 |", "|---|---:|---:|---:|---:|---:|"]
    for name, zooms in record["zoom"].items():
        for zoom, row in zooms.items():
            values = (f"{row[f'{kind}, T={t:g}']:.1e}" for kind in ("bytes", "probabilities") for t in TEMPERATURES)
            lines.append(f"| {name} | {zoom} | {' | '.join(values)} |")
    exact, coded = (record["students"][kind] for kind in ("exact", "coded"))
    gaps = [100 * (ours - theirs) for ours, theirs in zip(coded, exact, strict=True)]
    spread = 100 * statistics.stdev(exact)
    reads, step = record["reading"].values()
    lines += [
        "",
        f"Students that learned from the teacher (mIoU {record['teacher']:.3f}) alone, {len(exact)} seeds: "
        f"{statistics.fmean(exact):.4f} from exact answers, {statistics.fmean(coded):.4f} from coded ones; by seed the "
        f"coded ones gained {', '.join(f'{gap:+.2f}' for gap in gaps)} points, where seeds alone spread by "
        f"{spread:.2f} (standard deviation).",
        "",
        f"Reading the answers of 8 crops takes {reads:.1f} ms, {100 * reads / step:.1f} % of a step of `mobile` "
        f"({step:.0f} ms), in processor time of one thread.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="a run folder whose model's answers are looked at, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        os.environ["SEGSHRINK_CACHE"] = str(Path(work) / "cache")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"created": created, "machine": describe_machine(), **measure(Path(work), given.teacher)}
    write_json(given.out / "teacher_code.json", record)
    write_text(given.out / "teacher_code.md", as_markdown(record))
    print(as_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
