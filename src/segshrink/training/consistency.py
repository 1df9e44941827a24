"""Consistency training: a network learns on unlabeled crops what its own moving average is sure of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Augmentation, Consistency
from segshrink.training.moving_average import moving_average
from segshrink.training.network_logits import logits_of

# The batch's key of what unlabeled pixels are taken for.
PSEUDO = "pseudo"


class SelfTeacher(nn.Module):
    """The moving average of a network, which names the pixels that it is sure of.

    From weak to strong views with a threshold: Sohn et al., FixMatch, NeurIPS 2020; for segmentation, with the average
    as the teacher: Yang et al., UniMatch V2, 2024.

    Args:
        network: What learns.
        settings: Threshold and decay.
    """

    def __init__(self, network: nn.Module, settings: Consistency) -> None:
        super().__init__()
        self.settings = settings
        average = moving_average(settings.ema_decay)
        self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True).requires_grad_(False)

    def update(self, network: nn.Module) -> None:
        """Move toward the network after a step of its own."""
        self.average.update_parameters(network)

    @torch.no_grad()
    def labels(self, images: Tensor, targets: Tensor, inside: Tensor | None) -> Tensor:
        """Return pseudo-labels (N, H, W) int64 of crops without labels, 255 where it isn't sure.

        Args:
            images: (N, bands, H, W), in the weak view.
            targets: (N, H, W); a crop with a label gets no pseudo-labels.
            inside: (N, H, W) bool, where there is an image; None: everywhere.
        """
        self.average.eval()
        pseudo = torch.full_like(targets, IGNORE_INDEX, dtype=torch.long)
        unlabeled = (targets == IGNORE_INDEX).flatten(1).all(dim=1)
        if unlabeled.any():
            confidence, classes = logits_of(self.average.module, images[unlabeled]).softmax(dim=1).max(dim=1)
            sure = confidence >= self.settings.threshold
            if inside is not None:
                sure &= inside[unlabeled]
            pseudo[unlabeled] = classes.masked_fill(~sure, IGNORE_INDEX)
        return pseudo


def consistency_loss(logits: Tensor, pseudo: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy with pseudo-labels, summed over sure pixels, over the number of unlabeled ones.

    Args:
        logits: (N, C, H, W).
        pseudo: (N, H, W) class indices, 255 where nobody is sure.
        targets: (N, H, W) true class indices, 255 where unlabeled.
    """
    total = F.cross_entropy(logits.float(), pseudo, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (targets == IGNORE_INDEX).sum().clamp_min(1)


def recolored(settings: Consistency) -> Augmentation:
    """Return how the colors of the strong view change."""
    return Augmentation(brightness=settings.color, contrast=settings.color, band_gain=settings.color / 2, noise=0.05)
