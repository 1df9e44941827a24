"""What every teacher is to a student: frozen, answering in the student's classes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.models import count_parameters

_LOGGER = logging.getLogger(__name__)

# Tiles of a scene that a teacher answers about, in pixels.
TILE, OVERLAP = 512, 64


class Teacher(ABC):
    """A frozen model, or what stands for one: no gradients, never part of the student's checkpoint.

    It is deliberately no ``nn.Module``: a Lightning module that holds one neither trains, saves nor switches it.

    Args:
        classes: The student's classes, in whose order it answers.
        known: Indices of the student's classes that it knows anything about; None: all. Its logits of others are
            -inf, and a student learns nothing from it about them.
        name: How messages and reports call it.

    Attributes:
        whole_scenes: Whether it answers about whole named scenes only, not about crops; the student then learns from
            its cache.
        module: The network whose features a student may learn from; None for a black box.
    """

    whole_scenes: bool = False
    module: nn.Module | None = None

    def __init__(self, classes: ClassMap, *, known: tuple[int, ...] | None = None, name: str = "teacher") -> None:
        self.classes = classes
        self.known = tuple(range(len(classes))) if known is None else known
        self.name = name

    @property
    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of everything that an answer depends on besides the image: weights, preprocessing, classes."""

    @property
    def parameters(self) -> int | None:
        """How many weights it has; None where that isn't known."""
        return None if self.module is None else count_parameters(self.module)

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order, without gradients.

        Where all logits of known classes are equal, it says nothing about the pixel.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.overlooked))

    def check_scenes(self, names: Sequence[str]) -> None:  # noqa: B027  # most teachers have nothing to check
        """Refuse to begin where it can't answer about every one of these scenes.

        Args:
            names: The scenes' names in their data set.
        """

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene, by the tiles that deployment uses.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        from segshrink.prediction import Predictor
        from segshrink.prediction.runtimes.torch import TorchBackend

        backend = TorchBackend(Answers(self), precision="auto", classes=self.classes, bands=image.shape[2])
        return Predictor(backend, tile=TILE, overlap=OVERLAP).predict_logits(image)

    @property
    def parts(self) -> tuple[Teacher, ...]:
        """The teachers that it asks; none: it answers itself."""
        return ()

    def of_parts(self, parts: Sequence[Teacher]) -> Teacher:
        """Return the same teacher that asks others, as many as ``parts``."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """Move what can be moved to ``device``."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: a frozen model is shared, not copied (weight averaging copies whole modules)."""
        return self


class Answers(nn.Module):
    """A teacher as the module that a torch backend runs."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.model = teacher.module
        self._logits = teacher.logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the teacher's logits."""
        return self._logits(images)


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
    """Refuse an answer that can't be probabilities, though the network's first one was taken for such.

    Raises:
        ModelError: Values lie outside [0, 1].
    """
    if not between_0_and_1(output, tolerance=tolerance):
        low, high = (float(value) for value in torch.aminmax(output))
        raise ModelError(
            f"{name} answered with numbers from 0 to 1 at first, which were taken for probabilities, and now with "
            f"{low:g} to {high:g}; say in its adapter what they are ('output: logits' or 'output: probabilities')"
        )
