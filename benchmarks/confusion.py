"""Claim: Confusion.update costs no more than a plain torch.bincount over uint8, on 8 × 512 × 512 labels.

Run ``python benchmarks/confusion.py``. Every contender starts from a prediction and a target of uint8 and ends with a
6 × 6 matrix; the plain ones neither ignore pixels nor check values, the first one doesn't even build its joint index.
Prints median milliseconds of processor time on one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from segshrink.evaluation import Confusion

CLASSES = 6
REPEATS = 40
WARM_UP = 3


def labels(pattern: str, *, seed: int) -> Tensor:
    """Return (8, 512, 512) uint8 labels: independent pixels, or constant blocks of 32 × 32 as in smooth masks."""
    generator = torch.Generator().manual_seed(seed)
    step = 1 if pattern == "random" else 32
    small = torch.randint(0, CLASSES, (8, 512 // step, 512 // step), generator=generator, dtype=torch.uint8)
    return small.repeat_interleave(step, 1).repeat_interleave(step, 2)


def contenders(prediction: Tensor, target: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is compared, by name."""
    bins = CLASSES * CLASSES
    ready = (target * CLASSES + prediction).view(-1)
    ignored = target.clone()
    ignored[:, :50] = 255
    wide, wide_target = prediction.long(), target.long()
    return {
        "torch.bincount uint8, joint index given": lambda: torch.bincount(ready, minlength=bins),
        "torch.bincount uint8 with joint index": lambda: torch.bincount(
            (target * CLASSES + prediction).view(-1), minlength=bins
        ),
        "torch.bincount uint8, ignored pixels cut out": lambda: torch.bincount(
            (ignored * CLASSES + prediction)[ignored != 255], minlength=bins
        ),
        "torch.bincount int64 with joint index": lambda: torch.bincount(
            (wide_target * CLASSES + wide).view(-1), minlength=bins
        ),
        "Confusion.update uint8": lambda: Confusion(CLASSES).update(prediction, target),
        "Confusion.update uint8, a tenth ignored": lambda: Confusion(CLASSES).update(prediction, ignored),
        "Confusion.update int64": lambda: Confusion(CLASSES).update(wide, wide_target),
    }


def main() -> None:
    """Measure by turns and print a table."""
    torch.set_num_threads(1)
    for pattern in ("random", "blocks"):
        functions = contenders(labels(pattern, seed=0), labels(pattern, seed=1))
        spent: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(REPEATS):
            for name, function in functions.items():
                for _ in range(WARM_UP):  # fills caches and the allocator's pools after the contender before
                    function()
                start = time.thread_time()
                function()
                spent[name].append(time.thread_time() - start)
        print(f"\n{pattern} labels, 8 x 512 x 512, {CLASSES} classes, one thread, torch {torch.__version__}")
        for name, times in spent.items():
            print(f"{1000 * statistics.median(times):8.2f} ms  {name}")


if __name__ == "__main__":
    main()
