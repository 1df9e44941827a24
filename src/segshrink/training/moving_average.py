"""The moving average of a network's weights, which follows quickly at first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

# What an average keeps of itself after n updates is (1 + n) / (10 + n), until that reaches its decay.
_WARM_UP = 10
_Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return the update of an ``AveragedModel``, in which early weights count less than they would otherwise.

    With a decay of 0.99 and no more than that, half of an average over 60 steps would still be the first weights. The
    rule is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.

    Args:
        decay: Share that a long average keeps at a step, in (0, 1).
    """

    def update(averages: _Tensors, weights: _Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        kept = min(decay, (1 + count) / (_WARM_UP + count))
        get_ema_multi_avg_fn(kept)(averages, weights, updates)  # type: ignore[no-untyped-call]

    return update
