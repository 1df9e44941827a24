"""Probabilities and labels as logits, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from segshrink.prediction.probabilities import check_labels, peak


def two_class_logits(values: Tensor, *, probabilities: bool) -> Tensor:
    """Turn one channel z, or the probability of the second class, (N, 1, h, w) into logits (0, z), (N, 2, h, w)."""
    z = torch.logit(values, eps=1e-7) if probabilities else values
    return torch.cat([torch.zeros_like(z), z], dim=1)


def one_hot_logits(labels: Tensor, classes: int, confidence: float, where: str) -> Tensor:
    """Turn label maps (N, h, w) into logits (N, K, h, w) whose softmax is ``confidence`` at the label.

    All logits but the label's are 0, see ``peak``.

    Raises:
        ModelError: A label isn't one of 0 to K - 1.
    """
    index = labels.round().long() if labels.is_floating_point() else labels.long()
    low, high = (int(value) for value in torch.aminmax(index))
    check_labels(low, high, classes, where)
    return _peaked(index, classes, peak(classes, confidence))


def _peaked(index: Tensor, classes: int, height: float) -> Tensor:
    """Return zeros (N, K, h, w) with ``height`` at class indices (N, h, w), where these are."""
    logits = torch.zeros(index.shape[0], classes, *index.shape[1:], device=index.device)
    return logits.scatter_(1, index[:, None], height)


def to_log_probabilities(probabilities: Tensor) -> Tensor:
    """Turn probabilities over dimension 1 into logits that a softmax leaves as they are; zero becomes 1e-7."""
    return probabilities.clamp_min(1e-7).log()
