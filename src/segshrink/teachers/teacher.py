"""What every teacher is to a student: frozen, answering in the student's classes."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.model_description import Normalization
from segshrink.models import count_parameters
from segshrink.prediction import Prediction, Predictor
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.prediction.pixel_units import check_units
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.probabilities import to_log_probabilities
from segshrink.working_size import Resize, depends_on_image, zoom

# Tiles of a scene that a teacher answers about, in pixels at its working size; part of every cached answer's name.
TILE, OVERLAP = 512, 64


class NamedScene(Protocol):
    """What a teacher is asked about: ``segshrink.data.Scene``."""

    @property
    def name(self) -> str:
        """The scene's name in its data set."""

    @property
    def image(self) -> NDArray[Any]:
        """(H, W, bands) raw pixel values."""


class Teacher(ABC):
    """A frozen model, or what stands for one: no gradients, never part of the student's checkpoint.

    It is deliberately no ``nn.Module``: a Lightning module that holds one neither trains, saves nor switches it.

    Args:
        classes: The student's classes, in whose order it answers.
        mapping: Which of its own classes stand for which of the student's; None: they are the same.
        known: Indices of the student's classes that it knows anything about; None: those of the mapping. Its logits of
            others are -inf, and a student learns nothing from it about them.
        scaling: Mean and standard deviation that an adapter gives its pixels, to see that images have the same units.
        name: How messages and reports call it.

    Attributes:
        whole_scenes: Whether it answers about whole named scenes only, not about crops; the student then learns from
            its cache.
        sees_whole_scenes: Whether it brings an image of any size to its own by itself, so that nothing else should
            tile it.
        resize: Working size to which its network brings images by itself; scenes are cut into tiles that suit it.
        module: The network whose features a student may learn from; None for a black box.
        parts: The teachers that it asks; none: it answers itself.
    """

    whole_scenes: bool = False
    sees_whole_scenes: bool = False
    resize: Resize | None = None
    module: nn.Module | None = None

    def __init__(
        self,
        classes: ClassMap,
        *,
        mapping: ClassMapping | None = None,
        known: tuple[int, ...] | None = None,
        scaling: Normalization | None = None,
        name: str = "teacher",
    ) -> None:
        if known is None:
            known = tuple(range(len(classes))) if mapping is None else mapping.known
        self.classes, self.mapping, self.known, self.name = classes, mapping, known, name
        self.parts: tuple[Teacher, ...] = ()
        self._scaling = scaling
        self._overlooked: set[int] = set()

    @property
    @abstractmethod
    def identity(self) -> str:
        """SHA-256 of everything that an answer depends on besides the image: weights, preprocessing, classes."""

    @property
    def parameters(self) -> int | None:
        """How many weights it has; None where that isn't known."""
        if self.module is not None:
            return count_parameters(self.module)
        counts = [part.parameters for part in self.parts]
        return None if not counts or None in counts else sum(count or 0 for count in counts)

    @property
    def overlooked(self) -> tuple[str, ...]:
        """Names of its own classes that stand for none of the student's and were likeliest somewhere, until now."""
        names = () if self.mapping is None else self.mapping.named(self._overlooked)
        return tuple(dict.fromkeys([*names, *(name for part in self.parts for name in part.overlooked)]))

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order, without gradients.

        Where all logits of known classes are equal, it says nothing about the pixel. The logit of a single known class
        is the logarithm of its odds against everything else, so 0 says nothing.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """

    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of a whole scene: by blended tiles, unless it takes images of one size.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        check_units(self._scaling, image, self.name)
        if self.sees_whole_scenes or depends_on_image(self.resize):
            whole: NDArray[np.float32] = self.logits(scene_tensor(image))[0].numpy()
            return whole
        backend = TorchBackend(TeacherModule(self), precision="auto", classes=self.classes, bands=image.shape[2])
        tile, overlap = (round(side / zoom(self.resize)) for side in (TILE, OVERLAP))
        return Predictor(backend, tile=tile, overlap=overlap, blend="cosine").predict_logits(image)

    def predict_scene(self, scene: NamedScene) -> Prediction:
        """Segment a scene, as a student is taught about it, into classes (H, W) and probabilities (C, H, W)."""
        logits = np.require(self.scene_logits(np.asarray(scene.image), scene.name), requirements=["C", "W"])
        index = most_likely(logits)
        softmax_in_place(logits)
        return Prediction(index=index, probabilities=logits)

    def check_scenes(self, names: Sequence[str]) -> None:
        """Refuse to begin where it can't answer about every one of these scenes.

        Args:
            names: The scenes' names in their data set.
        """
        for part in self.parts:
            part.check_scenes(names)

    def of_parts(self, parts: Sequence[Teacher]) -> Self:
        """Return the same teacher that asks others, as many as ``parts``."""
        other = copy.copy(self)
        other.parts = tuple(parts)
        return other

    def to_probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (N, C, H, W): of known classes among each other, of a single one against all else."""
        return logits.softmax(dim=1) if len(self.known) > 1 else logits.sigmoid()

    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) that have these probabilities; below 1e-7 they count as that."""
        if len(self.known) > 1:
            return self.without_unknown(to_log_probabilities(probabilities))
        return self.without_unknown(torch.logit(probabilities, eps=1e-7))

    def without_unknown(self, logits: Tensor) -> Tensor:
        """Give the classes (dimension 1) that it knows nothing about -inf, in place."""
        logits[:, [index for index in range(len(self.classes)) if index not in self.known]] = -torch.inf
        return logits

    def to(self, device: torch.device | str) -> Self:
        """Move what can be moved to ``device``."""
        for part in self.parts:
            part.to(device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: a frozen model is shared, not copied (weight averaging copies whole modules)."""
        return self


class TeacherModule(nn.Module):
    """A teacher as the module that a torch backend runs."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.model = teacher.module
        self._logits = teacher.logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the teacher's logits."""
        return self._logits(images)


def scene_tensor(image: NDArray[Any]) -> Tensor:
    """Return a scene (H, W, bands) as uint8 or float32 pixels (1, bands, H, W)."""
    pixels = np.require(image, np.uint8 if image.dtype == np.uint8 else np.float32, ["C", "W"])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
