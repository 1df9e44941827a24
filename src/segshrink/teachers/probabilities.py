"""What networks answer, probabilities, scores or labels, as logits."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from segshrink.errors import ModelError

_LOGGER = logging.getLogger(__name__)


def channels_for(classes: int) -> tuple[int, ...]:
    """Return how many channels of scores may stand for so many classes: two classes may share one."""
    return (1, 2) if classes == 2 else (classes,)


def two_class_logits(values: Tensor, *, probabilities: bool) -> Tensor:
    """Turn one channel z, or the probability of the second class, (N, 1, h, w) into logits (0, z), (N, 2, h, w)."""
    z = torch.logit(values, eps=1e-7) if probabilities else values
    return torch.cat([torch.zeros_like(z), z], dim=1)


def one_hot_logits(labels: Tensor, classes: int, confidence: float, where: str) -> Tensor:
    """Turn label maps (N, h, w) into logits (N, K, h, w) whose softmax is ``confidence`` at the label.

    The other classes share the rest, as in label smoothing (Szegedy et al. 2016, arXiv:1512.00567; 0.9 is theirs).
    All logits but the label's are 0.

    Raises:
        ModelError: A label isn't one of 0 to K - 1.
    """
    index = labels.round().long() if labels.is_floating_point() else labels.long()
    low, high = (int(value) for value in torch.aminmax(index))
    if low < 0 or high >= classes:
        raise ModelError(
            f"{where} answers with the class number {low if low < 0 else high}, but it has {classes} classes "
            f"(0 to {classes - 1}); correct its class names"
        )
    margin = math.log(confidence * (classes - 1) / (1 - confidence)) if classes > 1 else 0.0
    return _peaked(index, classes, margin)


def _peaked(index: Tensor, classes: int, height: float) -> Tensor:
    """Return zeros (N, K, h, w) with ``height`` at class indices (N, h, w), where these are."""
    logits = torch.zeros(index.shape[0], classes, *index.shape[1:], device=index.device)
    return logits.scatter_(1, index[:, None], height)


def to_log_probabilities(probabilities: Tensor) -> Tensor:
    """Turn probabilities over dimension 1 into logits that a softmax leaves as they are; zero becomes 1e-7."""
    return probabilities.clamp_min(1e-7).log()


def are_probabilities(output: Tensor, *, tolerance: float = 1e-2) -> bool:
    """Tell whether (N, C, ...) lies in [0, 1] and sums to one over the classes: a softmax was applied already.

    One channel is a probability when it lies in [0, 1]: a sigmoid was applied.
    """
    if not between_0_and_1(output):
        return False
    sums = output.sum(dim=1)
    return output.shape[1] == 1 or bool(torch.allclose(sums, torch.ones_like(sums), atol=tolerance))


def are_sigmoids(output: Tensor) -> bool:
    """Tell whether (N, C, ...) with C > 1 lies in [0, 1] without a sum of one: a sigmoid was applied to each class."""
    return output.shape[1] > 1 and between_0_and_1(output) and not are_probabilities(output)


def between_0_and_1(output: Tensor, *, tolerance: float = 0.0) -> bool:
    """Tell whether all values lie in [0, 1]."""
    return bool((output >= -tolerance).all()) and bool((output <= 1 + tolerance).all())


def tell_probabilities(output: Tensor, name: str, *, tolerance: float = 1e-2) -> bool:
    """Tell probabilities (N, C, ...), of all classes together or of each by itself, from logits, and say so.

    Args:
        output: A network's first answer.
        name: How messages call the network.
        tolerance: How far from one the sum over the classes may be.
    """
    if are_probabilities(output, tolerance=tolerance):
        _LOGGER.warning("%s answers with probabilities; their logarithms are taken for logits", name)
        return True
    if are_sigmoids(output):
        _LOGGER.warning(
            "%s answers with numbers from 0 to 1 that don't add up to 1 over the classes; they are taken for a "
            "probability of each class (sigmoids) and brought to a sum of 1; if they are logits, say 'output: logits' "
            "in its adapter",
            name,
        )
        return True
    return False


def check_probabilities(output: Tensor, name: str, *, tolerance: float = 1e-2) -> None:
    """Refuse an answer that can't be probabilities.

    Raises:
        ModelError: Values lie outside [0, 1].
    """
    if not between_0_and_1(output, tolerance=tolerance):
        low, high = (float(value) for value in torch.aminmax(output))
        raise ModelError(
            f"{name} is taken to answer with probabilities, as it did at first or as its adapter says, but answers "
            f"with {low:g} to {high:g}; say in its adapter what it is ('output: logits' or 'output: probabilities')"
        )
