"""A network of torch as a teacher."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel
from segshrink.teachers.fixed_image import answer_to_fixed_image
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.output_format import two_class_logits
from segshrink.teachers.pixel_units import check_units
from segshrink.teachers.teacher import Teacher, check_probabilities, tell_probabilities, to_log_probabilities
from segshrink.teachers.torch_adapter import AdaptedNetwork


class TorchTeacher(Teacher):
    """A frozen network: eval mode, no gradients.

    Args:
        model: Raw pixels (N, bands, H, W) -> logits, or probabilities, (N, K, H, W). One channel z stands for two
            classes, with logits (0, z).
        classes: The student's classes; None: those of the model's description.
        mapping: Which channels stand for which class; None: K = C, in the same order.
        output: What the model answers; "auto" finds out at the first batch.
        scaling: Mean and standard deviation that an adapter gives its pixels, to see that images have the same units.
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
        scaling: Normalization | None = None,
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
        self._output = output
        self._scaling = scaling
        self._overlooked: set[int] = set()
        self._first_answer: list[float] | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of weights, description or adapter, class mapping, and of the answer to one fixed image.

        The answer tells what no setting does: other code, or numbers that a network keeps beside its weights.
        """
        digest = hashlib.sha256()
        adapted = self.module if isinstance(self.module, AdaptedNetwork) else None
        network = adapted.network if adapted else self.module
        description: Any = getattr(network, "description", None)
        settings = [
            type(network).__qualname__,
            description.to_dict() if description else None,
            self.mapping.channels if self.mapping else None,
            self._output,
            self._answer(),
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
        """Move the network to ``device``; its identity stays what it was."""
        if torch.device(device).type != "cpu" and self._first_answer is None:
            self._first_answer = self._answer()  # another device rounds otherwise
        self.module.to(device)
        return self

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        return () if self.mapping is None else self.mapping.named(self._overlooked)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        A network whose output sums to one over the classes returns probabilities; it is recognised at the first batch
        and its output turned into log-probabilities, which a softmax leaves as they are.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.

        Raises:
            ConfigError: Its adapter scales pixels from 0 to 1, and these are larger.
            ModelError: It answered with probabilities at first, and now with other numbers.
        """
        if images.dtype == torch.uint8:
            check_units(self._scaling, images, self.name)
        output = self._run(images)
        if self.returns_probabilities is None:
            self.returns_probabilities = tell_probabilities(output, self.name)
        elif self._output == "auto" and self.returns_probabilities:
            check_probabilities(output, self.name)
        if output.shape[1] == 1:
            output = two_class_logits(output, probabilities=self.returns_probabilities)
        elif self.returns_probabilities:
            output = to_log_probabilities(output)
        if self.mapping is None:
            return output
        self._overlooked |= self.mapping.overlooked(output)
        return self.mapping.apply(output)

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene: by tiles, unless the network takes images of one size.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        check_units(self._scaling, image, self.name)
        if not (isinstance(self.module, AdaptedNetwork) and self.module.sees_whole_scenes):
            return super().scene_logits(image, name)
        pixels = np.require(image, np.uint8 if image.dtype == np.uint8 else np.float32, ["C", "W"])
        whole: NDArray[np.float32] = self.logits(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
        return whole

    def _run(self, images: Tensor) -> Tensor:
        """Return what the network answers, on the images' device."""
        if self.module.training:
            self.module.eval()
        anchor = next(self.module.parameters(), images)
        # Foreign networks compute in floating numbers only.
        pixels = images if isinstance(self.module, SegmentationModel) else images.float()
        output: Tensor = self.module(pixels.to(anchor.device)).float().to(images.device)
        return output

    def _answer(self) -> list[float] | None:
        """Measure the answer to the fixed image, without a trace."""
        if self._first_answer is not None:
            return self._first_answer
        kept = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        try:
            return answer_to_fixed_image(self._run, self._bands())
        finally:
            for buffer, values in kept:
                buffer.copy_(values)

    def _bands(self) -> int:
        """Return how many bands it takes, as far as that can be seen."""
        if isinstance(self.module, SegmentationModel):
            return self.module.description.bands
        if isinstance(self.module, AdaptedNetwork):
            return self.module.mean.numel()
        convolutions = (module for module in self.module.modules() if isinstance(module, nn.Conv2d))
        first = next(convolutions, None)
        return 3 if first is None else first.in_channels
