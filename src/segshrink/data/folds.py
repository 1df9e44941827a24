"""Folds of training images that follow pieces of ground, and which images a network has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from segshrink.data.sources import Dataset
from segshrink.errors import ConfigError
from segshrink.formatting import listed

Names = frozenset[str]


def training_groups(dataset: Dataset) -> dict[str, Names]:
    """Return the names of the training images of each declared group; an image of no group is one by itself."""
    return grouped({sample.name for sample in dataset.train}, dataset.groups)


def grouped(images: Set[str], groups: Mapping[str, Set[str]]) -> dict[str, Names]:
    """Divide images by groups, of which others are left out; an image of no group is one by itself."""
    known = {name: Names(images & held) for name, held in groups.items() if images & held}
    alone = images - Names().union(*known.values())
    return known | {name: Names({name}) for name in sorted(alone)}


def independent_groups(groups: Mapping[str, Set[str]], overlaps: Iterable[Set[str]]) -> list[list[str]]:
    """Return the names of groups, those together that show some of the same ground, be it by way of others."""
    together = [[name] for name in groups]
    for images in overlaps:
        touched = [names for names in together if any(groups[name] & images for name in names)]
        if touched:
            others = [names for names in together if names not in touched]
            together = [*others, [name for names in touched for name in names]]
    return sorted(sorted(names) for names in together)


def folds(dataset: Dataset, count: int) -> list[Names]:
    """Divide the training images into folds of about equally many images, whole groups in each.

    Raises:
        ConfigError: There are fewer groups than folds, or the split cuts images into patches.
    """
    if dataset.leaking:
        raise ConfigError("folds leave out whole images, but 'split.patches' cuts them up; choose another split")
    groups = training_groups(dataset)
    if count > len(groups):
        raise ConfigError(
            f"teacher.folds is {count}, but the training images of '{dataset.description.name}' are in {len(groups)} "
            f"groups ({listed(list(groups))}); choose at most as many"
        )
    parts: list[Names] = [Names()] * count
    for held in sorted(groups.values(), key=lambda images: (-len(images), min(images))):
        smallest = min(range(count), key=lambda place: len(parts[place]))
        parts[smallest] |= held
    return sorted(parts, key=min)


def unseen(dataset: Dataset, learned: Set[str], images: Set[str] | None = None) -> Names:
    """Return the images whose ground a network that learned from some images has not seen.

    An image's ground is seen with any image of its groups, and with any image that it is declared to overlap with.

    Args:
        dataset: Says what shows the same ground.
        learned: Names of the images that the network learned from.
        images: Names of the images asked about; None: the training images.
    """
    seen = set(learned)
    for together in (*dataset.groups.values(), *dataset.overlaps):
        if together & learned:
            seen |= together
    return Names({sample.name for sample in dataset.train} if images is None else images) - seen
