"""A teacher asked several times: about the image, its mirror images, and at several zooms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segshrink.losses.shapes import resized
from segshrink.teachers.teacher import Teacher, scene_tensor

_ROWS, _COLUMNS = 2, 3


@dataclass(frozen=True)
class View:
    """One way to look at an image: zoomed, then mirrored along some axes of (N, bands, H, W)."""

    scale: float = 1.0
    mirrored: tuple[int, ...] = ()

    def of(self, images: Tensor) -> Tensor:
        """Return the images (N, bands, H, W) seen so."""
        if self.scale != 1:
            height, width = (max(round(side * self.scale), 1) for side in images.shape[2:])
            smooth = self.scale < 1
            images = F.interpolate(images.float(), size=(height, width), mode="bilinear", antialias=smooth)
        return images.flip(self.mirrored) if self.mirrored else images

    def undone(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring maps (N, C, h, w) of what was seen back to the image."""
        return resized(maps.flip(self.mirrored) if self.mirrored else maps, size)


class Augmented(Teacher):
    """The average of a teacher's probabilities over several views of the same image, as log-probabilities.

    Args:
        teacher: The teacher.
        flips: True: the image, left-right, top-bottom and both; "left-right": the image and its mirror image.
        scales: Zooms; each is combined with each mirror image.
    """

    def __init__(
        self, teacher: Teacher, *, flips: bool | Literal["left-right"] = False, scales: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__(teacher.classes, known=teacher.known, name=teacher.name)
        mirrors: list[tuple[int, ...]] = [()]
        if flips:
            mirrors.append((_COLUMNS,))
        if flips is True:
            mirrors += [(_ROWS,), (_ROWS, _COLUMNS)]
        self.parts = (teacher,)
        self.whole_scenes = teacher.whole_scenes
        self.views = tuple(View(scale, mirrored) for scale in scales for mirrored in mirrors)

    @property
    def identity(self) -> str:
        """SHA-256 of the teacher's identity and the views."""
        settings = [self.parts[0].identity, [asdict(view) for view in self.views]]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 log-probabilities (N, C, H, W) at the input size, in the student's class order.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        return self._average(images, self.parts[0].logits)

    @torch.no_grad()
    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the log-probabilities (C, H, W) of a whole scene.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """

        def answer(view: Tensor) -> Tensor:
            pixels = np.ascontiguousarray(view[0].permute(1, 2, 0).numpy())
            return torch.from_numpy(self.parts[0].scene_logits(pixels, name))[None]

        average: NDArray[np.float32] = self._average(scene_tensor(image), answer)[0].numpy()
        return average

    def _average(self, images: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Average the answers about all views of images (N, bands, H, W)."""
        size = (images.shape[2], images.shape[3])
        # Probabilities are resized, not logits: those of classes that the teacher doesn't know are infinite.
        total = torch.zeros((), device=images.device)
        for view in self.views:
            total = total + view.undone(self.to_probabilities(answer(view.of(images))), size)
        return self.from_probabilities(total / len(self.views))
