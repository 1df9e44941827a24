"""What a network answers about one fixed image, as a few numbers: they change with whatever changes its answers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

_SIZES = ((64, 64), (224, 224), (512, 512))
# Directions along which an answer is measured, and decimals that are kept: processors round the last digits their way.
_DIRECTIONS, _DECIMALS = 8, 3


@torch.no_grad()
def answer_to_fixed_image(
    network: Callable[[Tensor], Tensor], bands: int, sizes: Sequence[tuple[int, int]] = _SIZES
) -> list[float] | None:
    """Measure what a network answers about noise that is always the same.

    Args:
        network: 8-bit pixels (1, bands, H, W) -> any tensor of numbers.
        bands: Bands of the image.
        sizes: Heights and widths to try, one after another, until it takes one.

    Returns:
        The answer's size and its direction, rounded; None if the network takes none of these images.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1, bands, *(max(sides) for sides in zip(*sizes, strict=True))), generator=generator)
    with _undisturbed():
        for height, width in sizes:
            try:
                answer = network(noise[:, :, :height, :width].to(torch.uint8)).detach().cpu().double().flatten()
            except Exception:  # noqa: S112  # anything may go wrong in a foreign network
                continue
            answer = answer.nan_to_num(0.0, 1e6, -1e6)
            length = float(answer.norm())
            rows = torch.randn(_DIRECTIONS, answer.numel(), generator=generator, dtype=torch.float32)
            along = [float(row.double() @ answer) / max(length, 1e-12) for row in rows]
            return [round(value, _DECIMALS) + 0.0 for value in (math.log(max(length, 1e-12)), *along)]
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Compute on one thread in full precision, with random numbers of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
