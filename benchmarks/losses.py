"""Claim: what a loss costs in a training step, forward and backward.

Run ``python benchmarks/losses.py`` (under a minute). Every loss runs as a term of a recipe would: logits are 8 × 6 ×
256 × 256 with a tenth of the pixels unlabeled, features 8 × 64 × 64 × 64 on both sides, with the adapter that the term
brings. One thread; median milliseconds of processor time, the contenders by turns. Results go to
``benchmarks/results/losses.*``, and the table also between the marks in ``docs/losses.md``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segshrink.files import write_json, write_text
from segshrink.losses import REGISTRY, build_term
from segshrink.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "losses.md"
MARKS = ("<!-- costs: written by benchmarks/losses.py -->", "<!-- end of costs -->")
IMAGES, CLASSES, SIDE = 8, 6, 256
CHANNELS, FEATURE_SIDE = 64, 64
REPEATS = 7
# Comparing all pixels of 8 maps of 64 × 64 with each other takes minutes; pooled they are as coarse as an encoder's.
OPTIONS: dict[str, dict[str, Any]] = {"cross_image_relation": {"pool": 4}}


def contenders() -> dict[str, Callable[[], None]]:
    """Return a training step's share of each loss, by name."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, IMAGES, CLASSES, SIDE, SIDE, generator=generator)
    features = torch.randn(2, IMAGES, CHANNELS, FEATURE_SIDE, FEATURE_SIDE, generator=generator)
    target = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    inside = torch.ones(target.shape, dtype=torch.bool)
    named: list[tuple[str, str | None]] = [
        (name, None) for name, loss in REGISTRY.items() if loss.compares != "features"
    ]
    named += [(name, loss.tap) for name, loss in REGISTRY.items() if loss.compares in ("features", "either")]
    return dict(step(name, tap, features if tap else logits, target, inside) for name, tap in named)


def step(name: str, tap: str | None, pair: Tensor, target: Tensor, inside: Tensor) -> tuple[str, Callable[[], None]]:
    """Return the label of a loss, and a function that runs it forward and backward.

    Args:
        name: The loss.
        tap: Where features are taken; None: on logits.
        pair: Student's and teacher's logits or features, (2, N, C, H, W).
        target: Labels (N, H, W).
        inside: Pixels inside the scene.
    """
    term = build_term(name, OPTIONS.get(name), student=tap)
    torch.manual_seed(0)
    adapter = term.build_adapter(CHANNELS, CHANNELS) if tap else None
    student, teacher = pair[0].clone().requires_grad_(), pair[1]

    def run() -> None:
        student.grad = None
        term(student, teacher, target, inside, num_classes=CLASSES, adapter=adapter).backward()  # type: ignore[no-untyped-call]

    return name if tap is None or REGISTRY[name].compares == "features" else f"{name} on features", run


def measure(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Return the median milliseconds of processor time of each."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(REPEATS + 1):
        for name, run in steps.items():
            start = time.thread_time()
            run()
            if repeat:  # the first fills caches and the allocator's pools
                spent[name].append(1000 * (time.thread_time() - start))
    return {name: round(statistics.median(times), 1) for name, times in spent.items()}


def to_table(milliseconds: dict[str, float]) -> str:
    """Return a Markdown table of the losses: on logits, then on features, each from cheap to dear."""
    lines = ["| loss | compares | ms |", "| --- | --- | ---: |"]
    rows = [(compared(name), value, name) for name, value in milliseconds.items()]
    order = ["labels", "logits", "features"]
    lines += [
        f"| `{name.split()[0]}` | {kind} | {value:.1f} |"
        for kind, value, name in sorted(rows, key=lambda row: (order.index(row[0]), row[1]))
    ]
    return "\n".join(lines)


def compared(name: str) -> str:
    """Return what a measured loss compares."""
    loss, _, features = name.partition(" on ")
    kind = REGISTRY[loss].compares
    return features or ("logits" if kind == "either" else kind)


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine = results["machine"]
    return "\n".join(
        [
            "# What a loss costs",
            "",
            f"Forward and backward, logits {IMAGES} × {CLASSES} × {SIDE} × {SIDE}, features {IMAGES} × {CHANNELS} × "
            f"{FEATURE_SIDE} × {FEATURE_SIDE} (`cross_image_relation` with `pool: 4`), float32; median of {REPEATS}, "
            "milliseconds of processor time.",
            "",
            f"{results['measured']}, {machine['cpu']}, {machine['threads']} thread, torch {machine['torch']}. "
            "Written by `python benchmarks/losses.py`.",
            "",
            to_table(results["milliseconds"]),
            "",
        ]
    )


def update_document(table: str) -> None:
    """Put the table between the marks of ``docs/losses.md``."""
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    write_text(DOCUMENT, f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}")


def main() -> None:
    """Measure by turns, print and write."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "logits": [IMAGES, CLASSES, SIDE, SIDE],
        "features": [IMAGES, CHANNELS, FEATURE_SIDE, FEATURE_SIDE],
        "options": OPTIONS,
        "milliseconds": measure(contenders()),
    }
    write_json(RESULTS / "losses.json", results)
    write_text(RESULTS / "losses.md", to_markdown(results))
    update_document(to_table(results["milliseconds"]))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
