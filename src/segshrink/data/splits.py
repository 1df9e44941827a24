"""Dividing images into training, validation and test images; pure, on paths relative to the data set's root."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from segshrink.config import Split
from segshrink.data.spatial_overlap import connected_components, overlapping_tiles
from segshrink.data.wildcards import Wildcard, has_wildcards, is_list_file, read_lines
from segshrink.errors import DataError, SegshrinkError
from segshrink.tiling import Window

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Division:
    """Positions of the images of each part, ascending, and what is wrong with the split.

    Attributes:
        train: Positions that train.
        val: Positions that judge during development.
        test: Positions that judge at the end; often empty.
        problems: One sentence each; empty if the split is sound.
        groups: Name and positions of each declared piece of ground, whatever part they are in.
        overlaps: Positions of images that show some of the same ground, for each declaration, and for each piece of
            ground that map tiles show twice.
    """

    train: tuple[int, ...] = ()
    val: tuple[int, ...] = ()
    test: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    overlaps: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class PatchDivision:
    """Squares of the images, as (position of the image, window), in image order; results leak."""

    train: tuple[tuple[int, Window], ...]
    val: tuple[tuple[int, Window], ...]


def divide(split: Split, images: Sequence[str], *, root: Path) -> Division:
    """Divide whole images by path, by group or at random; there, what shows the same ground stays on one side.

    Args:
        split: What the description says; with ``patches`` every image that doesn't test is in ``train`` (see
            ``divide_patches``).
        images: Image paths relative to ``root``, "/" between folders.
        root: Folder of the data set; text files of entries are read from there.

    Returns:
        The division. It never raises: an entry that matches nothing or several images of one stem, an image on two
        sides and an unreadable text file are told in ``problems``, and the rest is divided all the same.
    """
    finder = _Finder(images)
    problems: list[str] = []

    def positions(entries: list[str] | str | None, field: str) -> tuple[int, ...]:
        return () if entries is None else tuple(sorted(set(_positions(entries, finder, root, field, problems))))

    groups = {name: positions(entries, f"split.groups.{name}") for name, entries in (split.groups or {}).items()}
    problems += _overlaps(groups, images, kind="groups")
    declared = (positions(entries, "split.overlaps") for entries in split.overlaps)
    overlaps = (*declared, *overlapping_tiles(images))
    ground = Division(groups=tuple(groups.items()), overlaps=overlaps)
    if split.patches is not None or split.random is not None:
        tested = positions(split.test, "split.test")
        rest = sorted(set(range(len(images))) - set(tested))
        drawn = (
            Division(tuple(rest)) if split.random is None else _at_random(rest, (*groups.values(), *overlaps), split)
        )
        problems += drawn.problems
        return replace(ground, train=drawn.train, val=drawn.val, test=tested, problems=tuple(problems))
    if split.held_out is not None:
        others = [place for name, held in groups.items() if name != split.held_out for place in held]
        chosen = {"train": tuple(sorted(set(others))), "val": groups[split.held_out]}
        chosen["test"] = positions(split.test, "split.test")
        if split.test is not None:
            problems += _overlaps(chosen, images, kind="parts")
    else:
        chosen = {part: positions(getattr(split, part), f"split.{part}") for part in PARTS}
        problems += _overlaps(chosen, images, kind="parts")
    train, val, test = (chosen[part] for part in PARTS)
    return replace(ground, train=train, val=val, test=test, problems=tuple(problems))


def divide_patches(sizes: Sequence[tuple[int, int]], split: Split) -> PatchDivision:
    """Cut images into non-overlapping squares and shuffle these, as tutorials do. Results leak.

    Rests at the right and bottom that are narrower than a square are left out.

    Args:
        sizes: (height, width) of each image in pixels; (0, 0) leaves one out.
        split: Has ``patches`` (side in pixels), ``share`` (of the squares that are judged) and ``seed``.

    Raises:
        DataError: There are fewer than two squares.
    """
    side = split.patches or 0
    squares = [
        (position, Window(row, col, side, side))
        for position, (height, width) in enumerate(sizes)
        for row in range(0, height - side + 1, side)
        for col in range(0, width - side + 1, side)
    ]
    if len(squares) < 2:
        raise DataError(
            f"split.patches: {len(squares)} squares of {side} pixels fit into the images; take a smaller size"
        )
    judged = _drawn(len(squares), split.share, split.seed)
    return PatchDivision(
        train=tuple(square for number, square in enumerate(squares) if number not in judged),
        val=tuple(square for number, square in enumerate(squares) if number in judged),
    )


def find_images(
    entries: list[str] | str, images: Sequence[str], *, root: Path, field: str
) -> tuple[set[int], list[str]]:
    """Return the positions of the images that entries of a description mean, and what is wrong with the entries."""
    problems: list[str] = []
    return set(_positions(entries, _Finder(images), root, field, problems)), problems


class _Finder:
    """Finds images by path, stem or folder in constant time, by wildcard among those that begin as it does."""

    def __init__(self, images: Sequence[str]) -> None:
        self._images = images
        self._sorted = sorted((image, position) for position, image in enumerate(images))
        self._paths: dict[str, list[int]] = defaultdict(list)
        self._stems: dict[str, list[int]] = defaultdict(list)
        self._folders: dict[str, list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            path = PurePosixPath(image)
            for key in {image, str(path.with_suffix(""))}:
                self._paths[key].append(position)
            for key in {path.name, path.stem}:
                self._stems[key].append(position)
            for folder in path.parents:
                self._folders[str(folder)].append(position)

    def find(self, entry: str) -> list[int]:
        """Return the positions that ``entry`` means; none if it matches nothing.

        Of a line of two columns, "image mask", the image counts. A path that begins elsewhere counts by its end, the
        longest that an image has.

        Raises:
            DataError: A bare stem, or an end, that several images have.
        """
        text = entry.removeprefix("./").rstrip("/") or "."
        if has_wildcards(text) and text not in self._paths and text not in self._folders:
            return self._matching(text)
        for table in (self._paths, self._folders):
            if text in table:
                return table[text]
        positions = self._stems.get(text, [])
        if len(positions) > 1:
            raise self._ambiguous(entry, "stem", positions)
        return positions or self._by_end(text)

    def _by_end(self, text: str) -> list[int]:
        """Return the image whose path is an end of the line's first column, or the other way round."""
        columns = [*(text[: gap.start()] for gap in re.finditer(r"\s*[\t,]\s*| +", text)), text]
        for path in columns:
            name = path.rpartition("/")[2]
            ends: dict[int, list[int]] = defaultdict(list)
            for position in self._stems.get(name, ()):
                image = PurePosixPath(self._images[position])
                held = str(image if image.name == name else image.with_suffix(""))
                shorter, longer = sorted((path, held), key=len)
                if f"/{longer}".endswith(f"/{shorter}"):
                    ends[len(shorter)].append(position)
            if ends:
                longest = ends[max(ends)]
                if len(longest) > 1:
                    raise self._ambiguous(path, "end", longest)
                return longest
        return []

    def _ambiguous(self, entry: str, what: str, positions: Sequence[int]) -> DataError:
        shown = ", ".join(self._images[position] for position in positions[:3])
        more = ", ..." if len(positions) > 3 else ""
        return DataError(f"'{entry}' is the {what} of {len(positions)} images ({shown}{more}); write its folder too")

    def suggestion(self, entry: str) -> str:
        """Say which folder or image was perhaps meant, or where images are."""
        folders = sorted(folder for folder in self._folders if folder != ".")
        close = get_close_matches(entry, [*folders, *list(self._stems)[:5000]], n=1, cutoff=0.6)
        if close:
            return f"; did you mean '{close[0]}'?"
        places = folders or sorted(self._stems)
        more = f" and {len(places) - 6} more" if len(places) > 6 else ""
        return f"; {'folders with images' if folders else 'images'} are: {', '.join(places[:6])}{more}"

    def _matching(self, text: str) -> list[int]:
        pattern = Wildcard(text)
        first = bisect_left(self._sorted, (pattern.beginning, -1))
        following = (self._sorted[place] for place in range(first, len(self._sorted)))
        alike = takewhile(lambda item: item[0].startswith(pattern.beginning), following)
        whole = [position for image, position in alike if pattern.match(image) is not None]
        folders = [
            held for folder, held in self._folders.items() if folder != "." and pattern.match(folder) is not None
        ]
        positions = {*whole, *(position for held in folders for position in held)}
        if not positions and "/" not in text:
            positions = {
                position for stem, held in self._stems.items() if pattern.match(stem) is not None for position in held
            }
        return sorted(positions)


def _positions(
    listed_entries: list[str] | str, finder: _Finder, root: Path, field: str, problems: list[str]
) -> list[int]:
    positions: list[int] = []
    try:
        entries = _entries(listed_entries, root, field)
    except SegshrinkError as error:
        problems.append(str(error))
        return positions
    missing: dict[str, list[str]] = {}
    for entry, source in entries:
        try:
            matching = finder.find(entry)
        except DataError as error:
            problems.append(f"{source}: {error}")
            continue
        if not matching:
            missing.setdefault(source, []).append(entry)
        positions += matching
    for source, lost in missing.items():
        shown = ", ".join(f"'{entry}'" for entry in lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        verb = "matches" if len(lost) == 1 else "match"
        problems.append(f"{source}: {shown} {verb} no image{finder.suggestion(lost[0])}")
    if not entries and field not in ("split.train", "split.test", "exclude"):
        problems.append(f"{field} is empty; list folders, wildcards or image stems")
    return positions


def _entries(listed_entries: list[str] | str, root: Path, field: str) -> list[tuple[str, str]]:
    """Return (entry, where it stands); text files are replaced by their lines."""
    entries: list[tuple[str, str]] = []
    for entry in [listed_entries] if isinstance(listed_entries, str) else listed_entries:
        if is_list_file(entry):
            source = f"{field} ({entry})"
            entries += [(line, source) for line in read_lines(root / entry, purpose=field)]
        else:
            entries.append((entry, field))
    return entries


def _overlaps(chosen: Mapping[str, Sequence[int]], images: Sequence[str], *, kind: str) -> Iterable[str]:
    names = list(chosen)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            both = sorted(set(chosen[first]) & set(chosen[second]))
            if both:
                shown = ", ".join(images[position] for position in both[:3])
                more = f" and {len(both) - 3} more" if len(both) > 3 else ""
                where = "split" if kind == "parts" else "split.groups"
                yield f"{where}: {shown}{more} in both '{first}' and '{second}'; keep each image in one"


def _at_random(positions: Sequence[int], together: Sequence[Sequence[int]], split: Split) -> Division:
    pieces = connected_components(positions, together)
    if len(pieces) < 2:
        told = f"split.random needs at least two images of different ground, found {len(pieces)} of {len(positions)}"
        return Division(tuple(positions), problems=(told,))
    drawn = _drawn(len(pieces), split.random or 0.0, split.seed)
    judged = {position for number in drawn for position in pieces[number]}
    return Division(
        train=tuple(position for position in positions if position not in judged), val=tuple(sorted(judged))
    )


def _drawn(count: int, share: float, seed: int) -> set[int]:
    """Draw ``share`` of ``count`` >= 2 things, at least one and not all."""
    order = np.random.default_rng(seed).permutation(count)
    return set(order[: min(max(round(count * share), 1), count - 1)].tolist())
