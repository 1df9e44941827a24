"""A teacher's classes as the student's: by name, many to one, some missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segshrink.errors import ModelError, nearest


@dataclass(frozen=True)
class ClassMapping:
    """For each class of the student the channels of the teacher that stand for it; none where it is missing."""

    channels: tuple[tuple[int, ...], ...]

    @property
    def known(self) -> tuple[int, ...]:
        """The student's classes that the teacher knows."""
        return tuple(index for index, group in enumerate(self.channels) if group)

    def apply(self, logits: Tensor) -> Tensor:
        """Turn the teacher's logits (N, K, H, W) into the student's (N, C, H, W).

        Where classes are reordered or one to one, channels are picked; a group of channels becomes the logarithm of
        its summed exponentials, which sums its probabilities; a missing class gets -inf.
        """
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
    student: Sequence[str], teacher: Sequence[str], aliases: Mapping[str, str | Sequence[str]] | None = None
) -> ClassMapping:
    """Match classes by name, upper and lower case alike.

    Args:
        student: Names of the student's classes.
        teacher: Names of the teacher's, in the order of its channels.
        aliases: Class of the student -> class or classes of the teacher, where names differ.

    Raises:
        ModelError: An alias names a class that doesn't exist, or no class matches.
    """
    positions = {name.casefold(): index for index, name in enumerate(teacher)}
    own = {name.casefold(): name for name in student}
    wanted: dict[str, tuple[int, ...]] = {}
    for name, sources in (aliases or {}).items():
        if name.casefold() not in own:
            raise ModelError(f"the data set has no class '{name}'{nearest(name, list(student))}")
        group = [sources] if isinstance(sources, str) else list(sources)
        for source in group:
            if source.casefold() not in positions:
                raise ModelError(f"the teacher has no class '{source}'{nearest(source, list(teacher))}")
        wanted[name.casefold()] = tuple(positions[source.casefold()] for source in group)
    for key in own:
        if key not in wanted:
            wanted[key] = (positions[key],) if key in positions else ()
    mapping = ClassMapping(tuple(wanted[name.casefold()] for name in student))
    if not mapping.known:
        raise ModelError(
            f"the teacher's classes ({', '.join(teacher)}) share no name with the data set's ({', '.join(student)}); "
            "say in 'classes' which stand for which"
        )
    return mapping
