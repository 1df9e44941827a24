"""Checking that ground which trains doesn't judge, and how many independent pieces of it train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from segshrink.data.duplicates import CROSSINGS
from segshrink.data.findings import Problem
from segshrink.data.folds import grouped, independent_groups
from segshrink.data.pairing import Found
from segshrink.data.spatial_overlap import overlapping_footprints, overlapping_tiles
from segshrink.data.splits import Division
from segshrink.imagery import Georeference


def independent_training_groups(files: Found, division: Division) -> tuple[tuple[str, ...], ...]:
    """Return the names of groups of training images, those together that show some of the same ground."""
    names = [pair.name for pair in files.pairs]
    groups = {name: {names[place] for place in held} for name, held in division.groups}
    overlaps = [{names[place] for place in held} for held in division.overlaps]
    training = grouped({names[place] for place in division.train}, groups, overlaps)
    return tuple(tuple(together) for together in independent_groups(training, overlaps))


def spatial_leakage(
    files: Found, division: Division, parts: Mapping[str, str], places: Mapping[str, Georeference]
) -> tuple[Problem, ...]:
    """Say which images of two sides, of which one may be the unlabeled ones', show some of the same ground.

    Args:
        files: The images with masks.
        division: How they are divided.
        parts: Image → its part of the split, unlabeled ones, too.
        places: Image → where it lies.
    """
    images = list(parts)
    declared = [[files.pairs[place].relative for place in held] for held in division.overlaps]
    named = [[images[place] for place in held] for held in overlapping_tiles(images)]
    return *_by_pieces(parts, [*declared, *named]), *_by_coordinates(parts, places)


def _by_pieces(parts: Mapping[str, str], pieces: Iterable[Iterable[str]]) -> tuple[Problem, ...]:
    """Tell of pieces of ground, as the description or names of map tiles say, that are on two sides."""
    shared: dict[tuple[str, str], list[str]] = {}
    for piece in pieces:
        held = [image for image in piece if image in parts]
        of_parts = {parts[image]: image for image in reversed(held)}  # the first of each
        for one, other in CROSSINGS:
            if one in of_parts and other in of_parts:
                shared[of_parts[one], of_parts[other]] = held
    if not shared:
        return ()
    told = [f"{one} ({parts[one]}) and {other} ({parts[other]})" for one, other in list(shared)[:3]]
    more = f"; and {len(shared) - 3} more" if len(shared) > 3 else ""
    message = (
        "the same ground is on two sides of the split, as split.overlaps or the numbers in names of map tiles say: "
        f"{'; '.join(told)}{more}; put each piece on one side, as 'random' does"
    )
    files = dict.fromkeys(image for held in shared.values() for image in held)
    return (Problem("duplicate", "error", message, tuple(files)),)


def _by_coordinates(parts: Mapping[str, str], places: Mapping[str, Georeference]) -> tuple[Problem, ...]:
    """Tell of images of two sides whose coordinates overlap."""
    of_parts: dict[str, dict[str, Georeference]] = defaultdict(dict)
    for image, place in places.items():
        of_parts[parts[image]][image] = place
    shared = [pair for one, other in CROSSINGS for pair in overlapping_footprints(of_parts[one], of_parts[other])]
    if not shared:
        return ()
    told = [
        f"{one} ({parts[one]}) and {other} ({parts[other]}), {share:.0%} of the smaller"
        for one, other, share in shared[:3]
    ]
    more = f"; and {len(shared) - 3} more" if len(shared) > 3 else ""
    message = (
        f"{len(shared)} pairs of images on two sides of the split show some of the same ground, as their coordinates "
        f"say: {'; '.join(told)}{more}; scores leak, put them on one side"
    )
    files = dict.fromkeys(image for one, other, _ in shared for image in (one, other))
    return (Problem("near-duplicate", "warning", message, tuple(files)),)
