"""The learning rate over the steps of a run."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, total: int, warmup: float) -> float:
    """Return the factor of the learning rate at ``step``: linear warm-up, then a half cosine down to zero.

    Args:
        step: Optimisation steps done, 0 to ``total``.
        total: Steps of the whole run.
        warmup: Share of the steps in which the rate rises, in [0, 1).

    Source: Loshchilov & Hutter, SGDR, 2017 (one cycle); Goyal et al., 2017 (warm-up).
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / rising
    share = min(1.0, (step - rising) / max(1, total - rising))
    return 0.5 * (1.0 + math.cos(math.pi * share))
