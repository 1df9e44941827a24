"""Folds of training images that follow pieces of ground, and which images a network has not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

from segshrink.data.sources import Dataset
from segshrink.data.spatial_overlap import connected_components
from segshrink.errors import ConfigError
from segshrink.formatting import listed

Names = frozenset[str]


def training_groups(dataset: Dataset) -> dict[str, Names]:
    """Return the names of the training images of each declared group; see ``grouped`` for those of no group."""
    return grouped({sample.name for sample in dataset.train}, dataset.groups, dataset.overlaps)


def grouped(images: Set[str], groups: Mapping[str, Set[str]], overlaps: Iterable[Set[str]]) -> dict[str, Names]:
    """Divide images by groups, of which others are left out; those of no group by ground, named after its first."""
    known = {name: Names(images & held) for name, held in groups.items() if images & held}
    alone = sorted(images - Names().union(*known.values()))
    return known | {held[0]: Names(held) for held in connected_components(alone, overlaps)}


def independent_groups(groups: Mapping[str, Set[str]], overlaps: Iterable[Set[str]]) -> list[list[str]]:
    """Return the names of groups, those together that show some of the same ground, be it by way of others."""
    holding: dict[str, list[str]] = defaultdict(list)
    for name, held in groups.items():
        for image in held:
            holding[image].append(name)
    touched = ([name for image in images for name in holding.get(image, ())] for images in overlaps)
    return sorted(sorted(names) for names in connected_components(list(groups), touched))


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
