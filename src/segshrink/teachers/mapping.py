"""A teacher's classes as the student's: by name, many to one, some missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segshrink.errors import ModelError, nearest

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassMapping:
    """For each class of the student the channels of the teacher that stand for it; none where it is missing.

    Attributes:
        channels: Channels by class of the student.
        names: What the teacher calls its channels; empty where nobody says.
    """

    channels: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def known(self) -> tuple[int, ...]:
        """The student's classes that the teacher knows."""
        return tuple(index for index, group in enumerate(self.channels) if group)

    @property
    def identity(self) -> tuple[object, ...]:
        """What a teacher's answers depend on; JSON-able."""
        # Answers about a single class that earlier versions cached were compared with nothing.
        return self.channels if len(self.known) > 1 else (*self.channels, "log odds")

    def apply(self, logits: Tensor) -> Tensor:
        """Turn the teacher's logits (N, K, H, W) into the student's (N, C, H, W).

        Where classes are reordered or one to one, channels are picked; a group of channels becomes the logarithm of
        its summed exponentials, which sums its probabilities; a missing class gets -inf. Where channels that stand for
        no class have more than half of the probability, the teacher says nothing about the pixel: all logits of known
        classes are equal. A single known class gets the logarithm of its odds against all other channels.
        """
        picked = self._picked(logits)
        unused = self.unused(logits.shape[1])
        if not unused:
            return picked
        others = logits[:, unused].logsumexp(dim=1, keepdim=True)
        if len(self.known) == 1:
            return picked - others
        mapped = sorted({channel for group in self.channels for channel in group})
        silent = others > logits[:, mapped].logsumexp(dim=1, keepdim=True)
        nothing = torch.full((1, len(self.channels), 1, 1), -torch.inf, dtype=picked.dtype, device=picked.device)
        nothing[:, list(self.known)] = 0
        return torch.where(silent, nothing, picked)

    def unused(self, count: int) -> list[int]:
        """Return which of so many channels stand for no class."""
        return sorted(set(range(count)) - {channel for group in self.channels for channel in group})

    def overlooked(self, logits: Tensor) -> set[int]:
        """Return the channels that stand for no class of the student and are likeliest at some pixel (N, K, H, W)."""
        unused = self.unused(logits.shape[1])
        if not unused:
            return set()
        pixels = torch.bincount(logits.argmax(dim=1).flatten(), minlength=logits.shape[1])
        return {channel for channel in unused if pixels[channel] > 0}

    def named(self, channels: Iterable[int]) -> tuple[str, ...]:
        """Return what the teacher calls these channels; those without a name are left out."""
        return tuple(self.names[channel] for channel in sorted(channels) if channel < len(self.names))

    def _picked(self, logits: Tensor) -> Tensor:
        """Give each class of the student its channels, whatever the others say."""
        if self.channels == tuple((index,) for index in range(logits.shape[1])):
            return logits
        if all(len(group) == 1 for group in self.channels):
            return logits[:, [group[0] for group in self.channels]]
        columns = []
        for group in self.channels:
            if not group:
                columns.append(torch.full_like(logits[:, 0], -torch.inf))
            elif len(group) == 1:
                columns.append(logits[:, group[0]])
            else:
                columns.append(logits[:, list(group)].logsumexp(dim=1))
        return torch.stack(columns, dim=1)


def map_classes(
    student: Sequence[str],
    teacher: Sequence[str],
    aliases: Mapping[str, str | Sequence[str]] | None = None,
    *,
    name: str = "the teacher",
) -> ClassMapping:
    """Match classes by name, upper and lower case alike; say where an alias takes the place of an equal name.

    Args:
        student: Names of the student's classes.
        teacher: Names of the teacher's, in the order of its channels.
        aliases: Class of the student -> class or classes of the teacher, where names differ.
        name: How messages call the teacher.

    Raises:
        ModelError: An alias names a class that doesn't exist, or no class matches.
    """
    positions = {each.casefold(): index for index, each in enumerate(teacher)}
    groups: dict[str, tuple[str, ...]] = {
        each.casefold(): (each,) if each.casefold() in positions else () for each in student
    }
    for alias, meant in (aliases or {}).items():
        if alias.casefold() not in groups:
            raise ModelError(f"{name}: the data set has no class '{alias}'{nearest(alias, list(student))}")
        groups[alias.casefold()] = (meant,) if isinstance(meant, str) else tuple(meant)
        for each in groups[alias.casefold()]:
            if each.casefold() not in positions:
                raise ModelError(f"{name} has no class '{each}'{nearest(each, list(teacher))}")
    channels = tuple(tuple(positions[theirs.casefold()] for theirs in groups[ours.casefold()]) for ours in student)
    mapping = ClassMapping(channels, tuple(teacher))
    _tell_replaced(mapping, student, positions)
    if not mapping.known:
        raise ModelError(
            f"{name}'s classes ({', '.join(teacher)}) share no name with the data set's ({', '.join(student)}); say in "
            "'classes' which stand for which"
        )
    return mapping


def _tell_replaced(mapping: ClassMapping, student: Sequence[str], positions: Mapping[str, int]) -> None:
    """Say which classes of the teacher an alias leaves out though the student has a class of that name."""
    for name, group in zip(student, mapping.channels, strict=True):
        same = positions.get(name.casefold())
        if same is None or same not in mapping.unused(len(mapping.names)):
            continue
        names = [mapping.names[channel] for channel in (same, *group)]
        _LOGGER.warning(
            "'%s' is learned from the teacher's %s as 'classes' says, and its own class '%s' stands for nothing; "
            "write '%s: [%s]' to learn from both",
            name,
            ", ".join(names[1:]),
            names[0],
            name,
            ", ".join(names),
        )
