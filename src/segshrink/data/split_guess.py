"""Choosing a split: what lists or folders say, else by scenes, else at random."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from segshrink.config import Split
from segshrink.data.layout import part_of, scenes_of
from segshrink.data.spatial_overlap import overlapping_tiles
from segshrink.data.splits import divide, find_images
from segshrink.data.wildcards import LIST_SUFFIXES, escaped, read_lines
from segshrink.errors import SegshrinkError

_SHARE, _TRIES = 0.2, 50


class GuessedSplit(NamedTuple):
    """A split to write, where it comes from, and what should be checked about it (may be empty)."""

    fields: dict[str, Any]
    reason: str
    unsure: str = ""


def guess_split(
    root: Path,
    names: Sequence[str],
    images: Sequence[str],
    unpaired: Sequence[str],
    held: Mapping[str, Set[str | int]],
) -> GuessedSplit:
    """Choose a split for images that have masks.

    Args:
        root: The folder.
        names: All files, relative to it.
        images: Those that are images with masks.
        unpaired: Images without.
        held: Image → what its mask holds, of those that were looked at.
    """
    return (
        _by_lists(root, names, images, unpaired)
        or _by_folders(images)
        or _by_stems(images)
        or _by_scenes(root, images, held)
        or _at_random(root, images, held)
    )


def _by_lists(root: Path, names: Sequence[str], images: Sequence[str], unpaired: Sequence[str]) -> GuessedSplit | None:
    by_folder: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        path = PurePosixPath(name)
        part = part_of(path.stem)
        if part and path.suffix.lower() in LIST_SUFFIXES and "class" not in path.stem:
            by_folder[str(path.parent)].setdefault(part, name)
    best: tuple[int, dict[str, str], dict[str, Any], list[str]] = (0, {}, {}, [])
    everything = [*images, *unpaired]
    for lists in by_folder.values():
        found: dict[str, set[int]] = {}
        entries: dict[str, Any] = {}
        for part, name in lists.items():
            entries[part] = name
            positions, problems = find_images([name], everything, root=root, field=part)
            if problems and (folders := _folders_of(root / name, everything)):
                entries[part] = folders
                positions, problems = find_images(folders, everything, root=root, field=part)
            if positions and not problems and max(positions) < len(images):
                found[part] = positions
        count = len(set().union(*found.values()))
        if "train" in found and len(found) > 1 and count == sum(map(len, found.values())) and count > best[0]:
            left = [image for place, image in enumerate(images) if not any(place in part for part in found.values())]
            best = count, {part: lists[part] for part in found}, {part: entries[part] for part in found}, left
    if not best[0]:
        return None
    return _with_unused(_judged(best[2], f"by {', '.join(best[1].values())}"), best[3], "list")


def _folders_of(file: Path, images: Sequence[str]) -> list[str]:
    """Return the folders that the lines of a list name, as films are listed; empty where a line names none or two."""
    by_name: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for folder in PurePosixPath(image).parents:
            by_name[folder.name].add(str(folder))
    try:
        lines = read_lines(file, purpose="split")
    except SegshrinkError:
        return []
    return (
        [folder for line in lines for folder in by_name[line]] if all(len(by_name[line]) == 1 for line in lines) else []
    )


def _by_folders(images: Sequence[str]) -> GuessedSplit | None:
    entries: dict[str, dict[str, None]] = defaultdict(dict)
    outside: list[str] = []
    for image in images:
        steps = image.split("/")[:-1]
        place = next((place for place, step in enumerate(steps) if part_of(step)), None)
        if place is None:
            outside.append(image)
            continue
        entries[part_of(steps[place]) or ""]["/".join(steps[: place + 1])] = None
    if "train" not in entries or len(entries) < 2 or 2 * len(outside) > len(images):
        return None
    return _with_unused(
        _judged({part: list(folders) for part, folders in entries.items()}, "by folders"), outside, "folder"
    )


def _with_unused(split: GuessedSplit, images: Sequence[str], what: str) -> GuessedSplit:
    """Say which images are in no part."""
    unused = f"{len(images)} images such as {images[0]} are in no part's {what} and not used" if images else ""
    return split._replace(unsure="; ".join(text for text in (split.unsure, unused) if text))


def _by_stems(images: Sequence[str]) -> GuessedSplit | None:
    """Divide by the first words of names, "train_1" and "testA_1", where each is one of a part."""
    entries: dict[str, dict[str, None]] = defaultdict(dict)
    for image in images:
        path = PurePosixPath(image)
        first = re.split(r"[\W_\d]", path.stem)[0]
        entries[part_of(first) or ""][f"{escaped(str(path.parent / first))}*"] = None
    starts = [entry for held in entries.values() for entry in held]
    clash = any(one != other and one.startswith(other[:-1]) for one in starts for other in starts)
    if "train" not in entries or "" in entries or len(entries) < 2 or clash:
        return None
    return _judged({part: list(held) for part, held in entries.items()}, "by the first words of names")


def _judged(parts: dict[str, Any], reason: str) -> GuessedSplit:
    """Let the test part judge where there is no other."""
    unsure = ""
    if "val" not in parts:
        parts = {"train": parts["train"], "val": parts["test"]}
        unsure = "nothing but the test part is there to judge"
    return GuessedSplit({part: parts[part] for part in ("train", "val", "test") if part in parts}, reason, unsure)


def _by_scenes(root: Path, images: Sequence[str], held: Mapping[str, Set[str | int]]) -> GuessedSplit | None:
    scenes = scenes_of(images)
    scene_of = {image: scene for scene, held in scenes.items() for image in held}
    ground = ({scene_of[images[place]] for place in piece} for piece in (overlapping_tiles(images) if scenes else ()))
    if len(scenes) < 2 or any(len(touched) > 1 for touched in ground):  # zooms of a web map's tiles are no scenes
        return None
    names = list(scenes)
    best: tuple[tuple[int, float], list[str]] | None = None
    for seed in range(_TRIES):
        judged: list[str] = []
        count = 0
        for place in np.random.default_rng(seed).permutation(len(names)):
            scene = names[place]
            if count < _SHARE * len(images) and len(judged) < len(names) - 1:
                judged.append(scene)
                count += len(scenes[scene])
        val = [image for scene in judged for image in scenes[scene]]
        score = _missing(val, held), abs(count / len(images) - _SHARE)
        if best is None or score < best[0]:
            best = score, sorted(judged)
    if best is None:
        return None
    fields = {"train": [name for name in names if name not in best[1]], "val": best[1]}
    if divide(Split(**fields), images, root=root).problems:  # a folder also means those in it
        return None
    return GuessedSplit(
        fields, "by scene, so that neighbors stay on one side", "scenes are told by names of folders and files"
    )


def _at_random(root: Path, images: Sequence[str], held: Mapping[str, Set[str | int]]) -> GuessedSplit:
    if len(images) < 2:
        unsure = "one image has to train and to judge: scores are too good"
        return GuessedSplit({"patches": 64}, "squares of the only image", unsure)
    scored = []
    for seed in range(_TRIES if len(images) <= 10 * _TRIES else 1):
        division = divide(Split(random=_SHARE, seed=seed), images, root=root)
        scored.append((_missing([images[place] for place in division.val], held), seed))
    fields = {"random": _SHARE, "seed": min(scored)[1]}
    if overlapping_tiles(images):
        reason = "at random, all zooms of the same ground together, as numbers in names say"
        unsure = "neighboring tiles touch; give folders of different places if there are any"
        return GuessedSplit(fields, reason, unsure)
    unsure = "images of one place or film must not stand on both sides; give folders instead if they do"
    return GuessedSplit(fields, "at random, as no name speaks of parts or scenes", unsure)


def _missing(val: Sequence[str], held: Mapping[str, Set[str | int]]) -> int:
    """Count what masks hold that training doesn't have, thousandfold, and what judging doesn't."""
    judged = set(val)
    train: set[str | int] = set()
    other: set[str | int] = set()
    for image, values in held.items():
        (other if image in judged else train).update(values)
    return 1000 * len(other - train) + len(train - other)
