"""Finding out from names alone which files of a folder are images and masks, and how they belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

from segshrink.data.path_words import (
    Kind,
    drawbacks,
    identity,
    match_by_words,
    match_kinds,
    role_words,
    wrapper_folders,
)
from segshrink.data.wildcards import (
    Wildcard,
    columns,
    common_wildcard,
    escaped,
    existing_end,
    is_list_file,
    read_lines,
    with_lower_suffix,
)
from segshrink.errors import SegshrinkError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".jp2", ".webp", ".gif", ".vrt")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".geojson", ".gpkg", ".fgb")
# How folders and files are called in public data sets: masks, images, and what only looks like a mask.
_MASK = (
    r"gt(?:Fine|Coarse)(?:_labelTrainIds|_labelIds|_color|_instanceIds|_instanceTrainIds)?|Segmentation(?:Class|Object)"
    r"(?:Aug|Raw)?|ann_dir|annotations?|annots?|masks?|labels?(?:_?(?:train)?ids)?|gts?|ground_?truths?|seg|"
    r"segmentations?|targets?|lbls?"
)
_IMAGE = r"leftImg8bit|JPEGImages|img_dir|images?|imgs?|rgb|sat|photos?|pictures?|inputs?|originals?"
_ROLE = re.compile(rf"(?i)(?<![a-z0-9])(?:(?P<mask>{_MASK})|(?P<image>{_IMAGE}))(?![a-z])")
_GLUED = re.compile(r"(?i)(?<=[a-z])(?P<mask>annots?|masks?|labels?)$")
_SHORT = re.compile(r"(?<=\d)_(?P<mask>L|P|m|GT)$")
_AUGMENTED = re.compile(r"(?i)(?:^|[/_-])aug(?:ment(?:ed|ations?))?(?:[/_-]|$)")
_LARGEST_GROUPS = 8
# The share of images in the smallest scene with which scenes can be divided.
_JUDGED = 0.2


@dataclass(frozen=True)
class Layout:
    """Images and masks that belong together.

    Attributes:
        images: Wildcard of the images; None where only a list names them all.
        masks: Wildcard of the masks, with as many * parts.
        pairs: (image, mask), sorted; relative to the folder.
        unpaired: Images of the same kind that have no mask.
        others: Wildcards of further masks for the same images.
        other_images: Wildcards of further images for the same masks.
        apart: Wildcards of images with masks of their own that are laid out in another way and not taken.
        by_content: Whether only what they hold tells which files are masks.
    """

    images: str | None
    masks: str | None
    pairs: tuple[tuple[str, str], ...]
    unpaired: tuple[str, ...]
    others: tuple[str, ...] = ()
    other_images: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    by_content: bool = False


@dataclass
class _Group:
    """Files of one role whose paths are built alike: ``pattern`` with what the * stand for in each."""

    pattern: str
    parts: dict[str, tuple[str, ...]]

    def keys(self, *, varying: bool) -> dict[tuple[str, ...], str]:
        """Return what tells the files apart → file; without what is the same in all, where only ``varying`` counts."""
        held = list(self.parts.values())
        constant = [len(set(column)) == 1 for column in zip(*held, strict=True)]
        kept = [place for place, same in enumerate(constant) if not (varying and same and place < len(constant) - 1)]
        return {tuple(parts[place] for place in kept): name for name, parts in self.parts.items()}


@dataclass(frozen=True)
class _Match:
    """Pairs with both wildcards, and all files of the images' kind."""

    images: str
    masks: str
    kind: tuple[str, ...]
    pairs: dict[str, str]


def find_layout(names: Sequence[str], *, masks: str | None = None) -> Layout | None:
    """Pair the images and masks among file names.

    Args:
        names: Paths relative to the folder, "/" between folders.
        masks: Wildcard of the masks to take, one of an earlier answer's ``others``.

    Returns:
        The pairs of the best match; None where no image has a mask. Without a wildcard of the images only the list of
        pairs says them all.
    """
    ranked = sorted(_all_matches(names), key=_rank)
    if not ranked:
        return None
    chosen = next((match for match in ranked if masks in (None, match.masks)), ranked[0])
    same_images = [match for match in ranked if match is not chosen and _overlaps(match, chosen)]
    masked = set(chosen.pairs.values())
    same_masks = [match for match in ranked if not masked.isdisjoint(match.pairs.values()) and match is not chosen]
    pairs, kinds = dict(chosen.pairs), [chosen.kind]
    for match in ranked:
        if match not in same_images and _more_of(match, chosen, pairs):
            pairs |= match.pairs
            kinds.append(match.kind)
    unpaired = {name for kind in kinds for name in kind} - set(pairs)
    unpaired -= {mask for match in ranked for mask in match.pairs.values()}
    layout = Layout(chosen.images, chosen.masks, tuple(sorted(pairs.items())), tuple(sorted(unpaired)))
    others = tuple(dict.fromkeys(match.masks for match in same_images if match.masks != chosen.masks))
    rivals = [match for match in same_masks if set(match.pairs).isdisjoint(pairs) and not _measured(match)]
    images = tuple(dict.fromkeys(match.images for match in rivals))
    taken = {*pairs, *pairs.values()}
    untouched = [match for match in ranked if taken.isdisjoint({*match.pairs, *match.pairs.values()})]
    apart = tuple(dict.fromkeys(match.images for match in untouched if not _measured(match)))
    return explained(replace(layout, others=others, other_images=images, apart=apart), names)


def layout_from_lists(root: Path, names: Sequence[str]) -> Layout | None:
    """Pair images and masks by lists of two columns, which may begin with another machine's folders.

    Args:
        root: The folder.
        names: All files in it, relative to it.

    Returns:
        The pairs of all such lists; None where there are none.
    """
    pairs: dict[str, str] = {}
    for name in names:
        if not is_list_file(name):
            continue
        try:
            lines = read_lines(root / name, purpose="pairs")
        except SegshrinkError:
            continue
        for line in lines:
            image, mask = (path and existing_end(path, root) for path in columns(line, root))
            if image and mask and all(path.lower().endswith(MASK_SUFFIXES) for path in (image, mask)):
                pairs[image] = mask
    return Layout(None, None, tuple(sorted(pairs.items())), ()) if pairs else None


def _groups(names: Sequence[str], *, strip_images: bool) -> tuple[list[_Group], list[_Group]]:
    """Return the largest groups of images and of masks; ``strip_images`` takes words such as "_sat" out of names."""
    roles: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {"image": defaultdict(dict), "mask": defaultdict(dict)}
    files = [name for name in names if PurePosixPath(name).suffix.lower() in MASK_SUFFIXES]
    wrappers = wrapper_folders(files)
    for name in files:
        suffix = PurePosixPath(name).suffix.lower()
        *folders, file = name.split("/")
        split = [
            (None, "*", (step,)) if tuple(folders[:place]) in wrappers else _split_step(step)
            for place, step in enumerate(folders, start=1)
        ]
        stem = file[: -len(suffix)]
        stem_role, stem_pattern, stem_parts = _split_step(stem, short=True)
        if stem_role != "mask" and not strip_images:
            stem_role, stem_pattern, stem_parts = None, "*", (stem,)
        is_mask = "mask" in (stem_role, *(role for role, _, _ in split))
        if not is_mask and suffix not in IMAGE_SUFFIXES:
            continue
        pattern = "/".join([*(text for _, text, _ in split), stem_pattern]) + suffix
        parts = (*(part for _, _, held in split for part in held), *stem_parts)
        roles["mask" if is_mask else "image"][pattern][name] = parts
    ordered = [
        sorted((_Group(pattern, parts) for pattern, parts in groups.items()), key=lambda group: -len(group.parts))
        for groups in roles.values()
    ]
    return ordered[0][:_LARGEST_GROUPS], ordered[1][:_LARGEST_GROUPS]


def _split_step(step: str, *, short: bool = False) -> tuple[str | None, str, tuple[str, ...]]:
    """Return the role that a folder's or file's name has, its wildcard, and what the wildcard stands for.

    Example:
        >>> _split_step("train_masks")
        ('mask', '*_masks', ('train',))
    """
    found = list(_ROLE.finditer(step))
    match = next((word for word in reversed(found) if word.groupdict()["mask"]), found[-1] if found else None)
    match = match or _GLUED.search(step) or (_SHORT.search(step) if short else None)
    if match is None:
        return None, "*", (step,)
    role = "mask" if match.groupdict()["mask"] else "image"
    before, after = step[: match.start()], step[match.end() :]
    joint = before[len(before.rstrip("_-. ")) :]
    tail = after[: len(after) - len(after.lstrip("_-. "))]
    before, after = before.removesuffix(joint), after.removeprefix(tail)
    pattern = ("*" if before else "") + joint + match[0] + tail + ("*" if after else "")
    return role, pattern, tuple(part for part in (before, after) if part)


def _all_matches(names: Sequence[str]) -> Iterator[_Match]:
    """Yield pairs by names that are built alike, then what the words of paths tell beyond them."""
    best: dict[tuple[str, str], tuple[_Group, _Group, dict[str, str]]] = {}
    for strip_images in (False, True):
        images, found = _groups(names, strip_images=strip_images)
        for image_group in images:
            for mask_group in found:
                for pairs in _matches(image_group, mask_group):
                    key = (image_group.pattern, mask_group.pattern)
                    if key not in best or len(pairs) > len(best[key][2]):
                        best[key] = (image_group, mask_group, pairs)
    held = []
    for image_group, mask_group, pairs in best.values():
        held.append(set(pairs.items()))
        yield _Match(*_patterns(image_group, mask_group, pairs), tuple(image_group.parts), pairs)
    files = [name for name in names if PurePosixPath(name).suffix.lower() in MASK_SUFFIXES]
    for kind, pairs in match_by_words(files):
        if not any(pairs.items() <= known for known in held):
            texts = [common_wildcard(sorted(paths)) for paths in (pairs, pairs.values())]
            yield _Match(texts[0], texts[1], kind.files, pairs)


def _matches(images: _Group, masks: _Group) -> Iterator[dict[str, str]]:
    for varying in (False, True):
        keyed, wanted = masks.keys(varying=varying), images.keys(varying=varying)
        pairs = {image: keyed[key] for key, image in wanted.items() if key in keyed}
        if pairs and not set(pairs) & set(pairs.values()):
            yield pairs


def _rank(match: _Match) -> tuple[object, ...]:
    measured_images, *of_masks = drawbacks(*next(iter(match.pairs.items())))
    train_ids = len(re.findall("(?i)train_?ids|class", match.masks))
    return measured_images, -len(match.pairs), *of_masks, -train_ids, match.masks, match.images


def _measured(match: _Match) -> bool:
    """Whether images are rather measured or drawn beside the images, such as heights and previews."""
    return drawbacks(*next(iter(match.pairs.items())))[0] > 0


def _overlaps(match: _Match, chosen: _Match) -> bool:
    """Whether a match has images of the chosen one, with other masks."""
    return not set(match.pairs).isdisjoint(chosen.pairs) and set(match.pairs.values()).isdisjoint(chosen.pairs.values())


def _shape(match: _Match) -> list[tuple[tuple[str, ...], ...]]:
    """Return what folders and names tell of a pair's files, folder by folder."""
    pair = next(iter(match.pairs.items()))
    return [tuple(role_words(step) for step in (*path.split("/")[:-1], PurePosixPath(path).stem)) for path in pair]


def _more_of(match: _Match, chosen: _Match, pairs: Mapping[str, str]) -> bool:
    """Whether a match has more of what the chosen one has: no other kind of files, no copies in another format."""
    alike = _shape(match) == _shape(chosen)
    copies = not {*map(identity, match.pairs)}.isdisjoint(map(identity, pairs))
    return alike and not copies and not match_kinds(Kind(tuple(match.pairs)), Kind(tuple(chosen.pairs.values())))


def _patterns(images: _Group, masks: _Group, pairs: Mapping[str, str]) -> tuple[str, str]:
    """Return both wildcards, with * only where paths differ."""
    texts = []
    for group, members in ((images, list(pairs)), (masks, list(pairs.values()))):
        columns = list(zip(*(group.parts[name] for name in members), strict=True))
        kept = {place for place, column in enumerate(columns) if len(set(column)) > 1 or place == len(columns) - 1}
        pieces = group.pattern.split("*")
        filled = [
            "*" if place in kept else columns[place][0] if place < len(columns) else ""
            for place in range(len(pieces) - 1)
        ]
        texts.append("".join(piece + part for piece, part in zip(pieces, [*filled, ""], strict=True)))
    return texts[0], texts[1]


def explained(layout: Layout, names: Sequence[str]) -> Layout:
    """Return a layout without the wildcard of the images where both, as ``pairing`` reads them, mean other pairs."""
    first, second = Wildcard(layout.images or ""), Wildcard(layout.masks or "")
    if first.parts != second.parts:
        return replace(layout, images=None)
    held = {with_lower_suffix(name): name for name in names}
    expected = {name: second.fill(parts) for name in names if (parts := first.match(name)) is not None}
    foreign = {with_lower_suffix(mask) for mask in expected.values()}
    kept = {image: mask for image, mask in expected.items() if with_lower_suffix(image) not in foreign}
    pairs = {image: held[low] for image, mask in kept.items() if (low := with_lower_suffix(mask)) in held}
    means = (pairs, set(kept) - set(pairs)) == (dict(layout.pairs), set(layout.unpaired))
    return layout if means else replace(layout, images=None)


# How parts of a split are called.
_PARTS = {
    **dict.fromkeys(("train", "training", "trainannot", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valannot", "dev", "hold", "holdout"), "val"),
    **dict.fromkeys(("test", "testing", "testannot"), "test"),
}


def part_of(step: str) -> str | None:
    """Return the part of a split that a folder's or list's name speaks of: "train", "val", "test"; None for none."""
    words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", step)
    return next((part for word in words if (part := _PARTS.get(word.lower()))), None)


def augmented_folders(names: Sequence[str]) -> set[str]:
    """Return the folders whose names say that they hold altered copies of other images; empty where all files do."""
    folders = {str(PurePosixPath(name).parent) for name in names}
    found = {folder for folder in folders if _AUGMENTED.search(folder)}
    return found if found < folders else set()


def scenes_of(images: Sequence[str]) -> dict[str, list[str]]:
    """Group images by the scene that they were probably cut from, or the film they are frames of.

    Returns:
        An entry of a split (a folder, or a wildcard) → its images; empty where names speak of no scenes.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        path = PurePosixPath(image)
        by_folder[str(path.parent)].append(image)
        scene = re.match(r"(.*?[a-z0-9])[-_ ]+(?:[a-z]{0,6}[-_ ]?\d+[-_ x]*)+$", path.stem, re.IGNORECASE)
        by_stem[f"{escaped(str(path.with_name(scene[1])))}*" if scene else image].append(image)
    if len(by_folder) > 1:
        return _by_upper_folders(by_folder, len(images))
    if not 1 < len(by_stem) <= len(images) / 2:
        return {}
    ordered = sorted(entry.rstrip("*") for entry in by_stem)
    if any(after.startswith(before) for before, after in pairwise(ordered)):  # a wildcard would find two scenes
        return {}
    return dict(by_stem)


def _by_upper_folders(by_folder: Mapping[str, list[str]], count: int) -> dict[str, list[str]]:
    """Put folders of one upper folder together, as clips of a film, where that leaves one of a fifth of all or less."""
    for depth in range(max(folder.count("/") for folder in by_folder)):
        upper: dict[str, list[str]] = defaultdict(list)
        for folder, images in by_folder.items():
            upper["/".join(folder.split("/")[: depth + 1])] += images
        if len(upper) > 1 and min(map(len, upper.values())) <= _JUDGED * count:
            return dict(upper)
    return dict(by_folder)
