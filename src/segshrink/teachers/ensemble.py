"""Several teachers as one: the average of what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.errors import ConfigError
from segshrink.teachers.teacher import Teacher


class Ensemble(Teacher):
    """The average of several teachers' probabilities, as log-probabilities.

    A class gets the average over the teachers that know it; then a pixel's classes are brought to a sum of one. So a
    teacher for two classes and one for all the others make one for all. Who knows a single class says how likely it is
    against everything else; where none knows another, the average is such log odds, too. At pixels that a teacher says
    nothing about (all its logits equal) the others speak; where none says anything, neither does the ensemble.

    Args:
        teachers: At least one; all answer in the same classes.
        weights: Each one's share, above 0.
        combine: "weights": by their shares. "confidence": by their shares times each one's largest probability at the
            pixel, so that whoever is sure is heard.

    Raises:
        ConfigError: No teacher, not one weight each, or classes that differ.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        weights: Sequence[float],
        *,
        combine: Literal["weights", "confidence"] = "weights",
    ) -> None:
        if not teachers or len(weights) != len(teachers) or min(weights) <= 0:
            raise ConfigError(
                f"{len(teachers)} teacher(s) have the weights {list(weights)}; give each one weight above 0"
            )
        first = teachers[0]
        if any(teacher.classes.names != first.classes.names for teacher in teachers):
            raise ConfigError("several teachers must answer in the same classes; open them for one data set")
        known = sorted({index for teacher in teachers for index in teacher.known})
        super().__init__(first.classes, known=tuple(known), name=" + ".join(teacher.name for teacher in teachers))
        self.parts = tuple(teachers)
        self.weights = tuple(float(weight) for weight in weights)
        self.combine = combine
        self.whole_scenes = any(teacher.whole_scenes for teacher in teachers)

    @property
    def identity(self) -> str:
        """SHA-256 of the teachers' identities and of how they are combined."""
        settings = [[teacher.identity for teacher in self.parts], self.weights, self.combine]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 log-probabilities (N, C, H, W) at the input size, in the student's class order.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.
        """
        return self._combined([teacher.logits(images) for teacher in self.parts], range(len(self.parts)))

    def members_for(self, name: str) -> Sequence[int]:
        """Return the positions of the teachers that answer about the scene of that name: all of them."""
        return range(len(self.parts))

    @torch.no_grad()
    def scene_logits(self, image: NDArray[Any], name: str) -> NDArray[np.float32]:
        """Return the log-probabilities (C, H, W) of a whole scene; each teacher looks at it in its own way.

        Args:
            image: Raw pixel values (H, W, bands).
            name: The scene's name in its data set.
        """
        members = self.members_for(name)
        answers = [torch.from_numpy(self.parts[place].scene_logits(image, name))[None] for place in members]
        combined: NDArray[np.float32] = self._combined(answers, members)[0].numpy()
        return combined

    def _combined(self, answers: Sequence[Tensor], members: Sequence[int]) -> Tensor:
        """Average logits (N, C, H, W) of the teachers at these positions."""
        total = torch.zeros_like(answers[0])
        shares = torch.zeros_like(answers[0])
        for place, logits in zip(members, answers, strict=True):
            teacher, weight = self.parts[place], self.weights[place]
            probabilities = teacher.to_probabilities(logits)
            known = list(teacher.known)
            kept = logits[:, known]
            if len(known) > 1:
                largest = probabilities.amax(dim=1, keepdim=True)
                speaks = kept.amax(dim=1, keepdim=True) > kept.amin(dim=1, keepdim=True)
            else:
                largest = kept.abs().sigmoid()
                speaks = kept != 0
            share = largest * weight if self.combine == "confidence" else weight
            total[:, known] += probabilities[:, known] * share * speaks
            shares[:, known] += share * speaks
        average = total / shares.clamp_min(torch.finfo(shares.dtype).tiny)
        if len(self.known) == 1:
            return self.from_probabilities(average.masked_fill(shares == 0, 0.5))
        sums = average.sum(dim=1, keepdim=True)
        return self.from_probabilities(torch.where(sums > 0, average / sums, torch.ones_like(average)))
