"""How masks are read beside what their classes are: labels of shapes, what nobody drew, ids of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.errors import DataError

# The label that stands for all that nothing else names.
ANY_LABEL = "*"
# What annotation tools call the shapes that carry no label.
_IGNORED_LABEL = "__ignore__"
# How a class is called that stands for what nobody drew.
BACKGROUNDS = ("background", "_background_", "__background__", "other")


@dataclass(frozen=True)
class MaskOptions:
    """How masks are read.

    Attributes:
        field: Of polygons on the ground, the attribute that holds a class's name or value; None is "class". Where None
            is given, no polygon has "class" and there are two classes, all polygons are one class: the one that isn't
            ``background``.
        background: The class of pixels that no shape covers; None ignores them. None is, where all polygons on the
            ground are one class of two, the first class; in annotations of images a class called background or other.
        labels: (label, class) where shapes or folders are labeled by another word than their class's name.
        ignored_labels: Labels of shapes that carry no class.
        instances: What the values of objects' ids are made of: the number that the class's value was multiplied by, or
            "all" where every id but 0 is an object of the only class beside the first.
        tolerant: Whether shapes of an undeclared class are ignored instead of refused.
    """

    field: str | None = None
    background: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    ignored_labels: tuple[str, ...] = ()
    instances: int | Literal["all"] | None = None
    tolerant: bool = False

    def background_index(self, classes: ClassMap, *, guess: bool = False) -> int:
        """Return the class index of what no shape covers, 255 where it is ignored.

        Args:
            classes: What masks mean.
            guess: Whether a class that is called background or other is it, where nothing else is said.

        Raises:
            DataError: It is none of the classes.
        """
        names = list(classes.names)
        if self.background is not None and self.background not in names:
            raise DataError(f"the background '{self.background}' is no class; classes are {', '.join(names)}")
        called_so = (name for name in names if guess and name.casefold() in BACKGROUNDS)
        name = self.background or next(called_so, None)
        return IGNORE_INDEX if name is None else names.index(name)

    def label_table(self, classes: ClassMap) -> dict[str | None, int]:
        """Return label, as ``label_key`` writes it, → class index; names of classes are labels, and None is ignored."""
        table: dict[str | None, int] = dict.fromkeys(
            map(label_key, (None, _IGNORED_LABEL, *self.ignored_labels)), IGNORE_INDEX
        )
        table |= {label_key(name): index for index, name in enumerate(classes.names)}
        return table | {label_key(label): classes.names.index(name) for label, name in self.labels}

    def values_of(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Turn (H, W) ids of objects, or (H, W, bands) colors of all of them, into (H, W) values of classes."""
        if self.instances == "all":
            return np.asarray((np.atleast_3d(ids) != 0).any(axis=2), dtype=np.uint8)
        whole = np.issubdtype(ids.dtype, np.integer)
        if self.instances is None or not whole or self.instances > np.iinfo(ids.dtype).max:
            return ids
        return np.asarray(np.where(ids >= self.instances, ids // self.instances, ids))


def label_key(value: Any) -> str | None:
    """Return a label as it is compared: in any case, 3.0 as 3; None for empty ones."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).strip().casefold() or None
