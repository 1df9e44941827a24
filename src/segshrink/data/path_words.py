"""Pairing images and masks by the words in their paths: some tell what a file is, the others which file it is."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TypeVar

# Words of masks, of images, and of what is drawn from masks or measured beside images and so is neither at first.
_MASK = re.compile(
    r"label(?!l?ed)[a-z]*|mask(?!ed)[a-z]*|annot?[a-z]*|ann|lab|lbls?|gts?|(?:ground)?truths?|segs?|segment(?!ed)[a-z]*|"
    r"semantics?|targets?|manual|trimaps?|parsing|stuffthingmaps"
)
_IMAGE = re.compile(r"(?:jpeg)?images?|imgs?|rgb|sat|photos?|pictures?|inputs?|originals?|frames?|ortho")
_LESS = re.compile(
    r"instances?|objects?|panoptic|edges?|boundar(?:y|ies)|contours?|depth|d[se]m|elevations?|elev|disparity|superpixels?|"
    r"overlays?|visuali[sz]ations?|visual|vis|previews?|nir|irrg|rgbir|nirrgb|nirrg"
)
_COLORED = re.compile(r"colou?r(?:ed|s|masks?|maps?)?|rgb")
_PART = re.compile(r"train(?:ing|val)?|trn|val(?:id|idation)?|dev|test(?:ing)?|hold(?:out)?")
_CODED = re.compile(r"(?:train)?ids?|index(?:ed)?|gr[ae]y(?:scale)?|watershed")
_FORMAT = re.compile(r"png|jpe?g|tiff?|bmp|gif")
_LARGEST_KINDS = 12
# Names whose words are kept, as each is asked for again and again.
_REMEMBERED = 1 << 17
_POLYGONS = (".geojson", ".gpkg", ".fgb")
_Key = TypeVar("_Key")


@lru_cache(maxsize=_REMEMBERED)
def words_of(step: str) -> tuple[str, ...]:
    """Return the words and numbers in a name, in lower case.

    Example:
        >>> words_of("GroundTruth_img007")
        ('ground', 'truth', 'img', '7')
    """
    found = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", step).casefold())
    return tuple(str(int(word)) if word.isdecimal() else word for word in found)


@lru_cache(maxsize=_REMEMBERED)
def role_words(step: str) -> tuple[str, ...]:
    """Return those words of a name that tell what a file is; what it comes "with" isn't that."""
    words = words_of(step)
    words = words[: words.index("with")] if "with" in words else words
    return tuple(word for word in words if any(kind.fullmatch(word) for kind in (_MASK, _IMAGE, _LESS, _COLORED)))


def is_mask_word(word: str) -> bool:
    """Whether a word tells that a file is a mask."""
    return _MASK.fullmatch(word) is not None


@lru_cache(maxsize=_REMEMBERED)
def _split(path: str) -> tuple[tuple[str, ...], str, str]:
    """Return the folders of a path, its stem, and its suffix in lower case."""
    *folders, file = path.split("/")
    stem, dot, suffix = file.rpartition(".")
    return (tuple(folders), stem, f".{suffix}".lower()) if stem else (tuple(folders), file, dot)


@lru_cache(maxsize=_REMEMBERED)
def _all_words(steps: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for step in steps for word in words_of(step))


def may_name_a_class(name: str) -> bool:
    """Whether a name may be a class's: it has letters, and none of its words tells kinds or formats of masks apart."""
    words = words_of(name)
    telling = any(kind.fullmatch(word) for kind in (_LESS, _COLORED, _IMAGE, _PART, _FORMAT, _CODED) for word in words)
    return any(word.isalpha() and not is_mask_word(word) for word in words) and not telling


def drawbacks(image: str, mask: str) -> tuple[int, ...]:
    """Return what speaks against a pair, the heaviest first: 0 or more each, whatever words both paths share."""
    first, second = roles(image, mask)
    of_image, of_mask = first - second, second - first
    told = {word for word in of_mask if is_mask_word(word)}
    return (
        sum(_LESS.fullmatch(word) is not None for word in of_image),
        not any(word.startswith("semantic") for word in told),
        sum(bool(_LESS.fullmatch(word) or _COLORED.fullmatch(word)) for word in of_mask),
        0 if "rgb" in of_image else 1 if any(_IMAGE.fullmatch(word) for word in of_image) else 2,
        bool(told) and all(word.startswith("mask") for word in told),  # beside labels, masks tell which pixels count
    )


def roles(image: str, mask: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return which words tell what the files of a pair are."""
    first, second = (
        frozenset(word for step in (*folders, stem) for word in role_words(step))
        for folders, stem, _ in map(_split, (image, mask))
    )
    return first, second


def identity(path: str) -> tuple[str, ...]:
    """Return the words of a path but those of file formats: what copies in another format share."""
    folders, stem, _ = _split(path)
    words = (word for step in (*folders, stem) for word in words_of(step))
    return tuple(word for word in words if not _FORMAT.fullmatch(word))


@dataclass(frozen=True)
class Kind:
    """Files of one role whose paths hold the same words that tell it; all files lie in the first ``shared`` folders."""

    files: tuple[str, ...]
    shared: int = 0

    @cached_property
    def folders(self) -> frozenset[str]:
        """All words in the names of folders."""
        return frozenset(word for file in self.files for word in self._folder_words(file))

    @cached_property
    def stems(self) -> dict[str, tuple[str, ...]]:
        """File → the parts of its stem."""
        return {file: _stem_parts(file) for file in self.files}

    @cached_property
    def some(self) -> frozenset[str]:
        """What stands in at least one stem."""
        return frozenset(part for parts in self.stems.values() for part in parts)

    @cached_property
    def all(self) -> frozenset[str]:
        """What stands in every stem."""
        return frozenset.intersection(*(frozenset(parts) for parts in self.stems.values()))

    @cached_property
    def words(self) -> frozenset[str]:
        """All words in stems."""
        return frozenset(word for part in self.some for word in words_of(part))

    @property
    def role_words(self) -> frozenset[str]:
        """Which words tell what the first file is."""
        return roles(self.files[0], "")[0]

    def keys(self, other: Kind, *, shortest: bool = False) -> dict[tuple[tuple[str, ...], tuple[str, ...]], str]:
        """Return what a path shares with those of another kind → file, where no two files share that.

        In folders all words that the other kind lacks are left out; in stems what each has and none of the other kind,
        and letters that the other kind lacks. Numbers stay.

        Args:
            other: The other kind.
            shortest: Take the file with the fewest words where several share them, unless two have as few.
        """
        found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = defaultdict(list)
        own = self.all - other.some
        for file, parts in self.stems.items():
            words = (word for part in parts if part not in own for word in words_of(part))
            stem = tuple(word for word in words if word.isdecimal() or word in other.words)
            if stem:
                found[tuple(sorted(self._folder_words(file) & other.folders)), stem].append(file)
        if shortest:
            for files in (files for files in found.values() if len(files) > 1):
                count = {file: len(identity(file)) for file in files}
                files[:] = [file for file in files if count[file] == min(count.values())]
        return {key: files[0] for key, files in found.items() if len(files) == 1}

    def _folder_words(self, file: str) -> frozenset[str]:
        return _all_words(_split(file)[0][self.shared :])


def without_drawings(images: Sequence[str]) -> list[str]:
    """Leave out images that are by name drawn or measured beside others of the same stem."""
    less = {image: sum(_LESS.fullmatch(word) is not None for word in roles(image, "")[0]) for image in images}
    fewest: dict[str, int] = {}
    for image, count in less.items():
        stem = _split(image)[1]
        fewest[stem] = min(count, fewest.get(stem, count))
    return [image for image in images if less[image] == fewest[_split(image)[1]]]


def mask_paths(names: Sequence[str]) -> set[str]:
    """Return the files whose paths say that they are masks."""
    wrappers = wrapper_folders(names)
    found = set()
    for name in names:
        folders, stem, suffix = _split(name)
        steps = [step for place, step in enumerate(folders, start=1) if folders[:place] not in wrappers]
        words = (word for step in (*steps, stem) for word in role_words(step))
        if suffix in _POLYGONS or any(map(is_mask_word, words)):
            found.add(name)
    return found


def match_by_words(names: Sequence[str]) -> Iterator[tuple[Kind, dict[str, str]]]:
    """Pair the largest kinds of images and masks by the words of their paths.

    Args:
        names: Images and masks, relative to one folder.

    Yields:
        A kind of images, and image → mask of those that have masks of some kind.
    """
    affixes, masks_among = _affixes(names), mask_paths(names)
    ends = [{end for name, end in affixes.items() if (name in masks_among) is role} for role in (False, True)]
    affixes = {name: end for name, end in affixes.items() if end not in ends[0] & ends[1]}
    kinds: dict[tuple[bool, object], list[str]] = defaultdict(list)
    for name in names:
        folders, stem, suffix = _split(name)
        told = tuple(_without_parts(step) for step in folders if role_words(step))
        alike = (len(folders), told, role_words(stem), suffix, affixes.get(name))
        kinds[name in masks_among, alike].append(name)
    ordered = _largest(kinds)
    images, masks = ([kind for (is_mask, _), kind in ordered if is_mask is role] for role in (False, True))
    for image in images[:_LARGEST_KINDS]:
        for mask in masks[:_LARGEST_KINDS]:
            if pairs := match_kinds(image, mask):
                yield image, pairs
    plain = [image for image in images if not any(map(_LESS.fullmatch, image.role_words))]
    if len(plain) == len(masks) == 1 and len(plain[0].files) == len(masks[0].files) == 1:
        yield plain[0], {plain[0].files[0]: masks[0].files[0]}  # a scene and its mask need share no word


def match_all_kinds(names: Sequence[str]) -> list[tuple[Kind, dict[str, str]]]:
    """Pair kinds of files in both orders, where no word tells which of them are the masks; the most pairs first.

    Files are of one kind by the name of their folder, their suffix and what tells files of one image apart.
    """
    affixes = _affixes(names)
    kinds: dict[object, list[str]] = defaultdict(list)
    for name in names:
        folders, _, suffix = _split(name)
        kinds[_without_parts(folders[-1]) if folders else (), suffix, affixes.get(name)].append(name)
    ordered = [kind for _, kind in _largest(kinds)][:_LARGEST_KINDS]
    both = ((one, match_kinds(one, other)) for one in ordered for other in ordered if one is not other)
    return sorted((match for match in both if match[1]), key=lambda match: -len(match[1]))


def _largest(kinds: Mapping[_Key, list[str]]) -> list[tuple[_Key, Kind]]:
    """Return the kinds of files, the largest first."""
    folders = [file.split("/")[:-1] for files in kinds.values() for file in files]
    shared = sum(1 for _ in takewhile(lambda steps: len(set(steps)) == 1, zip(*folders, strict=False)))
    return sorted(
        ((key, Kind(tuple(files), shared)) for key, files in kinds.items()), key=lambda kind: -len(kind[1].files)
    )


@lru_cache(maxsize=_REMEMBERED)
def _without_parts(step: str) -> tuple[str, ...]:
    return tuple(word for word in words_of(step) if not _PART.fullmatch(word))


def match_kinds(images: Kind, masks: Kind) -> dict[str, str]:
    """Pair two kinds by what their paths share; empty where fewer than half of the masks agree."""
    keyed, wanted = masks.keys(images), images.keys(masks, shortest=True)
    pairs = {image: keyed[key] for key, image in wanted.items() if key in keyed}
    return pairs if len(pairs) > 1 and 2 * len(pairs) >= len(masks.files) else {}


def _stem_parts(file: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[\W_]+", _split(file)[1].casefold()) if part)


def wrapper_folders(names: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the folders whose words say nothing of what is in them: masks and images alike, or all there is."""
    below: dict[tuple[str, ...], set[str]] = defaultdict(set)
    count: Counter[tuple[str, ...]] = Counter()
    for name in names:
        folders, stem, _ = _split(name)
        steps = [role_words(step) for step in (*folders, stem)]
        for place, words in enumerate(steps[:-1], start=1):
            if not words:
                continue
            folder = folders[:place]
            count[folder] += 1
            deeper = [word for held in steps[place:] for word in held]
            if any(map(is_mask_word, deeper)):
                below[folder].add("mask")
            elif any(_IMAGE.fullmatch(word) for word in deeper):
                below[folder].add("image")
    return {folder for folder in count if len(below[folder]) > 1 or count[folder] == len(names)}


def _affixes(names: Sequence[str]) -> dict[str, str]:
    """Return the ends of names that tell files of one image apart: "_1stHO" and "_2ndHO" of several stems, say."""
    ends: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
    split: list[tuple[str, tuple[str, ...], str, str]] = []
    for name in names:
        folders, stem, _ = _split(name)
        ends[folders, stem].add("")
        if found := re.fullmatch(r"(.*[^\W_])[\W_]+([^\W_]*[^\W\d_][^\W_]*)", stem):
            split.append((name, folders, found[1], found[2]))
            ends[folders, found[1]].add(found[2])
    split = [entry for entry in split if len(ends[entry[1], entry[2]]) > 1]
    count = Counter((folder, end) for _, folder, _, end in split)
    shared = {end for (_, end), number in count.items() if number > 1}
    return {name: end for name, _, _, end in split if end in shared}
