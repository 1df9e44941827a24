"""Claim: gradients that oneDNN computes slowly in bf16, and losses with one-hot labels, no longer hold a step up.

    python benchmarks/training_step.py     # two minutes; processor seconds, so that other work matters less

Steps of 8 crops of 256 pixels in bf16 on one thread, with and without ``QuickDepthwise``, by turns; and Jaccard losses
with their gradients beside segmentation-models-pytorch's. The least of the rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import torch
from segmentation_models_pytorch.losses import JaccardLoss
from torch.autograd import backward
from torch.nn import functional as F

from processor_results import write_results
from segshrink import ClassMap, build_model
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.losses import jaccard
from segshrink.machine import describe_machine
from segshrink.training.depthwise import QuickDepthwise

NETWORKS = ("mobile", "smp:Unet/tu-tf_efficientnet_lite2", "smp:Unet/mobilenet_v2")
ROUNDS, CROPS, SIDE = 3, 8, 256


def least(work: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Return the processor seconds of each piece of work, done by turns after one that isn't counted."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, run in work.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    return {name: round(min(each[1:]), 4) for name, each in seconds.items()}


def steps(identity: str) -> dict[str, float]:
    """Time a network's step."""
    model = build_model(identity, ClassMap.build([(f"class {number}", None, number) for number in range(6)]))
    model = model.to(memory_format=torch.channels_last).train()
    images = torch.rand(CROPS, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 6, (CROPS, SIDE, SIDE))

    def step(quick: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16), QuickDepthwise() if quick else nullcontext():
            logits = model(images)
        backward(F.cross_entropy(logits.float(), labels))

    return least({"plain": lambda: step(False), "quick": lambda: step(True)})


def losses(classes: int) -> dict[str, float]:
    """Time the Jaccard loss and its gradient."""
    logits = torch.randn(CROPS, classes, SIDE, SIDE).to(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, classes, (CROPS, SIDE, SIDE))
    library = JaccardLoss(mode="multiclass")
    return least(
        {"plain": lambda: backward(library(logits, labels)), "quick": lambda: backward(jaccard(logits, labels))}
    )


def page(record: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = [f"| {name} | {each['plain']:.3f} | {each['quick']:.3f} |" for name, each in record["seconds"].items()]
    head = [
        "# A training step",
        "",
        f"Written by `benchmarks/training_step.py`, {record['created']}, {record['machine']['cpu']}, torch "
        f"{record['machine']['torch']}; processor seconds on one thread, {CROPS} crops of {SIDE} pixels.",
        "",
        "| | plain PyTorch | segshrink |",
        "|---|---:|---:|",
    ]
    return "\n".join([*head, *rows, ""])


def main() -> None:
    """Time all, and write the page."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds = {f"step of {identity}": steps(identity) for identity in NETWORKS}
    seconds |= {f"Jaccard loss, {classes} classes": losses(classes) for classes in (6, 21)}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_results(
        "training_step", {"created": created, "machine": describe_machine(threads=1), "seconds": seconds}, page
    )


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main()
