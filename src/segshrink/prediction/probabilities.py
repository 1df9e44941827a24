"""Telling probabilities from scores in what networks answer, arrays and tensors alike."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    Answer: TypeAlias = NDArray[Any] | Tensor

_LOGGER = logging.getLogger(__name__)


def channels_for(classes: int) -> tuple[int, ...]:
    """Return how many channels of scores may stand for so many classes: two classes may share one."""
    return (1, 2) if classes == 2 else (classes,)


def are_probabilities(output: Answer, *, tolerance: float = 1e-2) -> bool:
    """Tell whether (N, C, ...) lies in [0, 1] and sums to one over the classes: a softmax was applied already.

    One channel is a probability when it lies in [0, 1]: a sigmoid was applied.
    """
    if not between_0_and_1(output):
        return False
    return output.shape[1] == 1 or bool((abs(output.sum(1) - 1) <= tolerance + 1e-5).all())


def are_sigmoids(output: Answer) -> bool:
    """Tell whether (N, C, ...) with C > 1 lies in [0, 1] without a sum of one: a sigmoid was applied to each class."""
    return output.shape[1] > 1 and between_0_and_1(output) and not are_probabilities(output)


def between_0_and_1(output: Answer, *, tolerance: float = 0.0) -> bool:
    """Tell whether all values lie in [0, 1]."""
    return bool((output >= -tolerance).all()) and bool((output <= 1 + tolerance).all())


def tell_probabilities(output: Answer, name: str, *, tolerance: float = 1e-2) -> bool:
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


def check_probabilities(output: Answer, name: str, *, tolerance: float = 1e-2) -> None:
    """Refuse an answer that can't be probabilities.

    Raises:
        ModelError: Values lie outside [0, 1].
    """
    if not between_0_and_1(output, tolerance=tolerance):
        raise ModelError(
            f"{name} is taken to answer with probabilities, as it did at first or as its adapter says, but answers "
            f"with {float(output.min()):g} to {float(output.max()):g}; say in its adapter what it is ('output: logits' "
            "or 'output: probabilities')"
        )


def peak(classes: int, confidence: float) -> float:
    """Return the logit of a class whose probability is ``confidence`` where all other logits are 0.

    The other classes share the rest, as in label smoothing (Szegedy et al. 2016, arXiv:1512.00567; 0.9 is theirs).
    """
    return float(np.log(confidence * (classes - 1) / (1 - confidence))) if classes > 1 else 0.0


def check_labels(lowest: int, highest: int, classes: int, name: str) -> None:
    """Refuse class numbers that aren't 0 to ``classes`` - 1.

    Raises:
        ModelError: One isn't.
    """
    if lowest < 0 or highest >= classes:
        raise ModelError(
            f"{name} answers with the class number {lowest if lowest < 0 else highest}, but it has {classes} classes "
            f"(0 to {classes - 1}); correct its class names"
        )
