"""A network of torch as a teacher."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.models import SegmentationModel
from segshrink.teachers.adapted import AdaptedNetwork
from segshrink.teachers.answers import two_class_logits
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.teacher import Teacher, are_probabilities, to_log_probabilities

_LOGGER = logging.getLogger(__name__)


class TorchTeacher(Teacher):
    """A frozen network: eval mode, no gradients.

    Args:
        model: Raw pixels (N, bands, H, W) -> logits, or probabilities, (N, K, H, W). One channel z stands for two
            classes, with logits (0, z).
        classes: The student's classes; None: those of the model's description.
        mapping: Which channels stand for which class; None: K = C, in the same order.
        output: What the model answers; "auto" finds out at the first batch.
        name: How messages and reports call it.

    Attributes:
        returns_probabilities: Whether the model answers with probabilities; None: not known yet.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassMap | None = None,
        mapping: ClassMapping | None = None,
        *,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        name: str = "teacher",
    ) -> None:
        if classes is None:
            if not isinstance(model, SegmentationModel):
                raise TypeError(f"{type(model).__name__} doesn't say its classes; give them")
            classes = model.description.classes
        super().__init__(classes, known=None if mapping is None else mapping.known, name=name)
        self.module: nn.Module = model.eval().requires_grad_(False)
        self.mapping = mapping
        self.returns_probabilities = None if output == "auto" else output == "probabilities"

    @property
    def identity(self) -> str:
        """SHA-256 of weights, description or adapter, and class mapping."""
        digest = hashlib.sha256()
        adapted = self.module if isinstance(self.module, AdaptedNetwork) else None
        network = adapted.network if adapted else self.module
        description: Any = getattr(network, "description", None)
        settings = [
            type(network).__qualname__,
            description.to_dict() if description else None,
            self.mapping.channels if self.mapping else None,
        ]
        if adapted:
            # Where the class names are written changes nothing.
            settings += [adapted.origin, adapted.adapter.model_dump(mode="json", exclude={"classes"})]
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
        anchor = next(self.module.parameters(), images)
        output: Tensor = self.module(images.to(anchor.device)).float().to(images.device)
        if self.returns_probabilities is None:
            one = output.shape[1] == 1
            self.returns_probabilities = _between_0_and_1(output) if one else are_probabilities(output)
            if self.returns_probabilities:
                _LOGGER.warning("%s answers with probabilities; their logarithms are taken for logits", self.name)
        if output.shape[1] == 1:
            output = two_class_logits(output, probabilities=self.returns_probabilities)
        elif self.returns_probabilities:
            output = to_log_probabilities(output)
        return output if self.mapping is None else self.mapping.apply(output)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene: by tiles, unless the network takes images of one size.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        if not (isinstance(self.module, AdaptedNetwork) and self.module.sees_whole_scenes):
            return super().scene_logits(image, name)
        pixels = np.require(image, np.uint8 if image.dtype == np.uint8 else np.float32, ["C", "W"])
        whole: NDArray[np.float32] = self.logits(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
        return whole


def _between_0_and_1(output: Tensor) -> bool:
    return bool((output >= 0).all()) and bool((output <= 1).all())
