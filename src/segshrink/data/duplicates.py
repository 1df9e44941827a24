"""Finding images of a data set that show the same, above all on two sides of the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshrink.data.findings import DuplicateFinding, Problem
from segshrink.data.fingerprints import near_matches

# Between these parts a picture must not occur twice: what is judged was then seen in training.
CROSSINGS = (("train", "val"), ("train", "test"), ("val", "test"), ("unlabeled", "val"), ("unlabeled", "test"))
_ORDER = ("train", "unlabeled", "val", "test")


@dataclass(frozen=True)
class Picture:
    """What is compared of an image.

    Attributes:
        path: Relative to the root.
        part: The part of the split.
        key: SHA-256 of the file, and of a VRT's sources.
        prints: What ``fingerprint`` gave.
    """

    path: str
    part: str
    key: str
    prints: NDArray[np.int8]


def find_duplicates(pictures: Sequence[Picture]) -> tuple[DuplicateFinding, ...]:
    """Find identical files anywhere and near-duplicates across the parts of a split, the closest first."""
    near = []
    for part, other_part in CROSSINGS:
        here = [picture for picture in pictures if picture.part == part]
        there = [picture for picture in pictures if picture.part == other_part]
        for match in near_matches([picture.prints for picture in here], [picture.prints for picture in there]):
            first, second = here[match.first], there[match.second]
            if first.key != second.key:
                near.append(_finding(first, second, identical=False, distance=match.distance))
    return (*_identical(pictures), *sorted(near, key=lambda finding: finding.distance))


def duplicate_problems(duplicates: Sequence[DuplicateFinding]) -> tuple[Problem, ...]:
    """Say what is wrong with duplicates: identical files across parts are errors, the rest are warnings."""
    crossing = [pair for pair in duplicates if pair.identical and _crosses(pair)]
    within = [pair for pair in duplicates if pair.identical and not _crosses(pair)]
    near = [pair for pair in duplicates if not pair.identical]
    problems = []
    if crossing:
        message = f"{len(crossing)} images stand on two sides of the split: {_told(crossing)}; remove one of each"
        problems.append(Problem("duplicate", "error", message, _files(crossing)))
    if near:
        message = (
            f"{len(near)} pairs of images on two sides of the split look alike: {_told(near)}; scores leak where they "
            "show the same, put them on one side"
        )
        problems.append(Problem("near-duplicate", "warning", message, _files(near)))
    if within:
        message = f"{len(within)} images of one part are the same file: {_told(within)}; each counts twice, remove one"
        problems.append(Problem("duplicate", "warning", message, _files(within)))
    return tuple(problems)


def _identical(pictures: Sequence[Picture]) -> list[DuplicateFinding]:
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        same[picture.key].append(picture)
    findings = []
    for group in same.values():
        # One pair for each further file, rather than all pairs: with one on another side if there is any.
        other = next((picture for picture in group if picture.part != group[0].part), group[0])
        for picture in group[1:]:
            first = other if picture.part == group[0].part else group[0]
            findings.append(_finding(first, picture, identical=True, distance=0.0))
    return findings


def _finding(first: Picture, second: Picture, *, identical: bool, distance: float) -> DuplicateFinding:
    if _ORDER.index(first.part) > _ORDER.index(second.part):
        first, second = second, first
    return DuplicateFinding(first.path, first.part, second.path, second.part, identical, round(distance, 4))


def _crosses(pair: DuplicateFinding) -> bool:
    return (pair.first_part, pair.second_part) in CROSSINGS


def _told(pairs: Sequence[DuplicateFinding]) -> str:
    pairs_text = [
        f"{pair.first} ({pair.first_part}) and {pair.second} ({pair.second_part}"
        + (")" if pair.identical else f", distance {pair.distance:.2f})")
        for pair in pairs[:3]
    ]
    return "; ".join(pairs_text) + (f"; and {len(pairs) - 3} more" if len(pairs) > 3 else "")


def _files(pairs: Sequence[DuplicateFinding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for pair in pairs for path in (pair.first, pair.second)))
