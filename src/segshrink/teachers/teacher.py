"""A frozen segmentation model that answers in the student's class order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.models import load_model


class Teacher:
    """A frozen model: eval mode, no gradients, never part of the student's checkpoint.

    It is deliberately no ``nn.Module``: a Lightning module that holds one neither trains, saves nor switches it.

    Args:
        model: Raw pixels (N, bands, H, W) -> logits, or probabilities, (N, C, H, W).
        order: For each class of the student its channel in the model's output; None keeps the model's order.
    """

    def __init__(self, model: nn.Module, order: tuple[int, ...] | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.order = order
        self.returns_probabilities: bool | None = None

    def to(self, device: torch.device | str) -> Self:
        """Move the model to ``device``."""
        self.model.to(device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: a frozen model is shared, not copied (weight averaging copies whole modules)."""
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        A model whose output sums to one over the classes returns probabilities; it is recognised at the first batch
        and its output turned into log-probabilities, which a softmax leaves as they are.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        if self.model.training:
            self.model.eval()
        output: Tensor = self.model(images).float()
        if self.returns_probabilities is None:
            self.returns_probabilities = _are_probabilities(output)
        if self.returns_probabilities:
            output = output.clamp_min(1e-7).log()
        return output if self.order is None else output[:, list(self.order)]


def open_teacher(source: str | Path, classes: ClassMap, *, bands: int = 3) -> Teacher:
    """Open a run or model folder as a teacher for a student with ``classes``.

    Args:
        source: Run folder, model folder, or a network id (random weights unless its options bring some).
        classes: The student's classes; the teacher's are matched by name, in any order.
        bands: Bands of the images.

    Raises:
        FileError: A file of the folder is missing or can't be read.
        ModelError: The folder is damaged, or the teacher has other classes or bands.
    """
    model = load_model(source, classes=classes, bands=bands)
    known = model.description.classes.names
    order = tuple(known.index(name) for name in classes.names)
    return Teacher(model, None if order == tuple(range(len(known))) else order)


def _are_probabilities(output: Tensor) -> bool:
    sums = output.sum(dim=1)
    in_range = bool((output >= 0).all()) and bool((output <= 1).all())
    return in_range and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
