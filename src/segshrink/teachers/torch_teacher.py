"""A network of torch as a teacher."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.models import SegmentationModel
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.teacher import Teacher, are_probabilities, to_log_probabilities


class TorchTeacher(Teacher):
    """A frozen network: eval mode, no gradients.

    Args:
        model: Raw pixels (N, bands, H, W) -> logits, or probabilities, (N, K, H, W).
        classes: The student's classes; None: those of the model's description.
        mapping: Which channels stand for which class; None: K = C, in the same order.
        name: How messages and reports call it.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassMap | None = None,
        mapping: ClassMapping | None = None,
        *,
        name: str = "teacher",
    ) -> None:
        if classes is None:
            if not isinstance(model, SegmentationModel):
                raise TypeError(f"{type(model).__name__} doesn't say its classes; give them")
            classes = model.description.classes
        super().__init__(classes, known=None if mapping is None else mapping.known, name=name)
        self.module: nn.Module = model.eval().requires_grad_(False)
        self.mapping = mapping
        self.returns_probabilities: bool | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of weights, description and class mapping."""
        digest = hashlib.sha256()
        description: Any = getattr(self.module, "description", None)
        settings = [
            type(self.module).__qualname__,
            description.to_dict() if description else None,
            self.mapping.channels if self.mapping else None,
        ]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        """Move the network to ``device``."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        A network whose output sums to one over the classes returns probabilities; it is recognised at the first batch
        and its output turned into log-probabilities, which a softmax leaves as they are.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        if self.module.training:
            self.module.eval()
        output: Tensor = self.module(images).float()
        if self.returns_probabilities is None:
            self.returns_probabilities = are_probabilities(output)
        if self.returns_probabilities:
            output = to_log_probabilities(output)
        return output if self.mapping is None else self.mapping.apply(output)
