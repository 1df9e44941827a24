"""Finding a data set's images, and pairing them with their masks by path."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segshrink.config import DatasetDescription
from segshrink.data.splits import Division, divide, find_images
from segshrink.data.wildcards import (
    Wildcard,
    columns,
    existing_end,
    has_wildcards,
    is_list_file,
    read_lines,
    whats_there,
    with_lower_suffix,
)
from segshrink.errors import ConfigError, DataError, FileError
from segshrink.file_search import is_file
from segshrink.formatting import listed
from segshrink.imagery.annotations import images_of
from segshrink.imagery.mask_options import ANY_LABEL
from segshrink.imagery.masks import CLASS_PART, mask_files
from segshrink.user_code import is_function

# Files that may hold the masks of many images.
_MANY_IMAGES = (".json", ".xml", ".geojson", ".gpkg", ".fgb")


@dataclass(frozen=True)
class Pair:
    """An image that was found, and its mask if that exists.

    Attributes:
        name: Unique, safe as a file name.
        relative: The image's path relative to the root, "/" between folders.
        image: The image file.
        mask: The mask file; None if there is none.
        expected: Where the mask was looked for, relative to the root; None if nothing says where.
    """

    name: str
    relative: str
    image: Path
    mask: Path | None
    expected: str | None


@dataclass(frozen=True)
class Found:
    """All images that a description means, and masks that no image has.

    Attributes:
        pairs: Sorted by path.
        orphans: (mask, image that was looked for), relative to the root.
        excluded: Images that the description excludes, relative to the root.
    """

    pairs: tuple[Pair, ...]
    orphans: tuple[tuple[str, str], ...] = ()
    excluded: tuple[str, ...] = ()


def find_pairs(description: DatasetDescription) -> Found:
    """Find all images and their masks; a missing mask isn't an error here.

    Raises:
        FileError: The root folder or list file is missing.
        ConfigError: ``images`` and ``masks`` can't be paired.
        DataError: No image matches, or nothing matches what is excluded.
    """
    if is_function(description.images):
        raise ConfigError(
            f"{description.name}: 'images: {description.images}' is a function, which only a command that is given "
            "this description calls; in Python, segshrink.with_files(description) does"
        )
    root = _checked_root(description)
    listed_images = is_list_file(description.images)
    return _without_excluded(
        description, _from_list(description, root) if listed_images else _by_path(description, root)
    )


def _by_path(description: DatasetDescription, root: Path) -> Found:
    images = Wildcard(description.images)
    candidates = _matching(images, root, "images")
    if description.masks is None:
        names = _names([(image, _pattern_name(images, image)) for image in candidates])
        return Found(tuple(Pair(name, image, root / image, None, None) for image, name in names.items()))
    masks = Wildcard(description.masks)
    if masks.text == images.text:
        raise ConfigError(f"{description.name}: 'images' and 'masks' are both '{masks.text}'; correct one of them")
    shared = masks.parts < images.parts and masks.text.lower().endswith(_MANY_IMAGES)
    if masks.parts != images.parts and not shared:
        raise ConfigError(
            f"{description.name}: images '{images.text}' has {images.parts} * parts but masks '{masks.text}' has "
            f"{masks.parts}; give both the same number, masks are paired by them"
        )
    expected = {image: masks.fill(parts[: masks.parts]) for image, parts in candidates.items()}
    # "a.png" with "a_mask.png" beside it: the pattern *.png finds both, but the second is a mask.
    foreign = {with_lower_suffix(mask) for image, mask in expected.items() if image != mask}
    kept = [image for image in candidates if with_lower_suffix(image) not in foreign]
    names = _names([(image, _pattern_name(images, image)) for image in kept])
    existing = _existing(masks, description, root)
    in_any_case = {with_lower_suffix(mask): mask for mask in existing}
    found = {
        image: mask if mask in existing else in_any_case.get(with_lower_suffix(mask))
        for image, mask in expected.items()
    }
    if shared:
        named = images_named(root, {image: found[image] for image in kept})
        found = {image: mask if image in named else None for image, mask in found.items()}
    pairs = tuple(
        Pair(
            names[image],
            image,
            root / image,
            None if (mask := found[image]) is None else root / mask,
            found[image] or expected[image],
        )
        for image in kept
    )
    wanted_masks = {found[image] for image in kept}
    orphans = tuple(
        (mask, images.fill(parts))
        for mask, parts in existing.items()
        if mask not in wanted_masks and mask not in candidates and not shared
    )
    return Found(pairs, orphans)


def _existing(masks: Wildcard, description: DatasetDescription, root: Path) -> dict[str, tuple[str, ...]]:
    """Find the masks: path, with "{class}" where each class has one → what the parts stand for."""
    if CLASS_PART not in masks.text:
        return masks.files(root)
    folders = [name for entry in description.classes for name in (entry.name, *entry.labels) if name != ANY_LABEL]
    held = (Wildcard(masks.text.replace(CLASS_PART, name)).files(root).values() for name in folders)
    return {masks.fill(parts): parts for found in held for parts in found}


def images_named(root: Path, masks: Mapping[str, str | None]) -> set[str]:
    """Return the images that their masks' files speak of: annotations name them, polygons on the ground may.

    Args:
        root: The folder that all paths are relative to.
        masks: Image → the file of its mask, which may be that of many images; None without.

    Raises:
        FileError: A file of annotations is damaged.
        DataError: A file names an image by what several are called.
    """
    images: dict[str, list[str]] = defaultdict(list)
    for image, mask in masks.items():
        if mask is not None:
            images[mask].append(image)
    named: set[str] = set()
    for mask, held in images.items():
        meant = images_of(root / mask, [root / image for image in held])
        named.update(image for image in held if root / image in meant)
    return named


def find_unlabeled(description: DatasetDescription, found: Found) -> tuple[Pair, ...]:
    """Find the images without masks; empty if the description names none.

    Args:
        description: The data set.
        found: What ``find_pairs`` found; what it excluded is left out, and names that it gave aren't given again.

    Raises:
        FileError: The root folder or list file is missing.
        DataError: No image matches.
    """
    excluded = set(found.excluded)
    kept = [(image, f"unlabeled-{label}") for image, label in _unlabeled(description) if image not in excluded]
    names = _names(kept, taken=[pair.name for pair in found.pairs])
    return tuple(Pair(name, image, description.root / image, None, None) for image, name in names.items())


def _unlabeled(description: DatasetDescription) -> list[tuple[str, str]]:
    """Return the images without masks, excluded ones too, with what names them."""
    if description.unlabeled is None:
        return []
    root = _checked_root(description)
    if is_list_file(description.unlabeled):
        lines = read_lines(root / description.unlabeled, purpose="unlabeled")
        images = list(dict.fromkeys(_listed_path(columns(line, root)[0], root) for line in lines))
        _refuse_missing(images, root, description.unlabeled)
        return [(image, _path_name(image)) for image in images]
    pattern = Wildcard(description.unlabeled)
    return [(image, _pattern_name(pattern, image)) for image in _matching(pattern, root, "unlabeled")]


def _without_excluded(description: DatasetDescription, found: Found) -> Found:
    """Leave out what a description excludes: images, with masks or unlabeled, and masks without image."""
    if not description.exclude:
        return found
    images = [*(pair.relative for pair in found.pairs), *(image for image, _ in _unlabeled(description))]
    paths = list(dict.fromkeys((*images, *(mask for mask, _ in found.orphans))))
    positions, problems = find_images(description.exclude, paths, root=description.root, field="exclude")
    if problems:
        raise DataError(f"{description.name}: {problems[0]}")
    excluded = {paths[position] for position in positions}
    return Found(
        tuple(pair for pair in found.pairs if pair.relative not in excluded),
        tuple(orphan for orphan in found.orphans if orphan[0] not in excluded),
        tuple(sorted(excluded.intersection(images))),
    )


def refuse_unpaired(description: DatasetDescription, files: Found, division: Division) -> None:
    """Raise DataError if an image of the split has no mask, or a mask that the split means has no image."""
    used = needs_mask(description, files, division)
    bare = [files.pairs[position] for position in used if files.pairs[position].mask is None]
    if bare:
        described = [f"{pair.relative} (expected {pair.expected or 'a second column'})" for pair in bare]
        raise DataError(
            f"{description.name}: {len(bare)} of {len(used)} images have no mask: {listed(described)} under "
            f"{description.root}; add the masks or correct 'masks'"
        )
    lost = meant_orphans(description, files)
    if lost:
        described = [f"{mask} (expected {image})" for mask, image in lost]
        raise DataError(
            f"{description.name}: {len(lost)} masks have no image: {listed(described)} under {description.root}; "
            "add the images or move these masks away"
        )


def needs_mask(description: DatasetDescription, files: Found, division: Division) -> list[int]:
    """Return the positions of the images of a split that need a mask.

    Without any mask none does; where a teacher's answers judge, those that train don't.
    """
    if description.masks is None and all(pair.mask is None for pair in files.pairs):
        return []
    judge = {*division.val, *division.test}
    return sorted(judge if description.truth == "teacher" else {*division.train, *judge})


def meant_orphans(description: DatasetDescription, files: Found) -> list[tuple[str, str]]:
    """Return those masks without image whose image, if it were there, would be in the split."""
    orphans = list(files.orphans)
    if description.split.random is not None or description.split.patches is not None or not orphans:
        return orphans
    images = [*(pair.relative for pair in files.pairs), *(image for _, image in orphans)]
    division = divide(description.split, images, root=description.root)
    used = {*division.train, *division.val, *division.test}
    return [orphan for number, orphan in enumerate(orphans) if len(files.pairs) + number in used]


def _checked_root(description: DatasetDescription) -> Path:
    root = description.root
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileError(
            f"the data set's root {root} {kind}; {_where_from(description)}correct 'root' (it is relative to the "
            "description file)"
        )
    if not os.access(root, os.R_OK | os.X_OK):
        raise FileError(f"no permission to read the data set's root {root}; change its permissions")
    if description.origin is not None and not any(root.iterdir()):
        raise FileError(f"the data set's root {root} is empty; {_where_from(description)}correct 'root'")
    return root


def _where_from(description: DatasetDescription) -> str:
    """Say how a published data set is fetched; nothing where the description doesn't."""
    origin = description.origin
    if origin is None:
        return ""
    fetch = f", fetched by: {origin.command}" if origin.command else ""
    return f"the data set is published at {origin.address} ({origin.license}){fetch}; or "


def _matching(pattern: Wildcard, root: Path, field: str) -> dict[str, tuple[str, ...]]:
    paths = pattern.files(root)
    if not paths:
        if not has_wildcards(pattern.text) and (root / pattern.text).is_dir():
            raise DataError(f"'{field}' names the folder {root / pattern.text}; write '{pattern.text}/*.png', say")
        raise DataError(
            f"no image matches '{field}: {pattern.text}' under {root}; {whats_there(root, pattern.text)}; "
            "correct the pattern or 'root'"
        )
    return paths


def _from_list(description: DatasetDescription, root: Path) -> Found:
    masks = None if description.masks is None else Wildcard(description.masks)
    shared = masks is not None and masks.parts == 0 and masks.text.lower().endswith(_MANY_IMAGES)
    if masks is not None and masks.parts != 1 and not shared:
        raise ConfigError(
            f"{description.name}: with a list file of images 'masks' must have one * part, which stands for the "
            f"image's stem; '{masks.text}' has {masks.parts}"
        )
    lines = [columns(line, root) for line in read_lines(root / description.images, purpose="images")]
    rows = [(_listed_path(image, root), mask and _listed_path(mask, root)) for image, mask in lines]
    images = [image for image, _ in rows]
    twice = sorted(image for image, count in Counter(images).items() if count > 1)
    if twice:
        raise DataError(f"the list file {root / description.images} names {listed(twice)} twice; keep one line")
    _refuse_missing(images, root, description.images)
    names = _names([(image, _path_name(image)) for image in images])
    expected = {
        image: mask if masks is None else masks.fill([PurePosixPath(image).stem][: masks.parts]) for image, mask in rows
    }
    found = {
        image: mask
        for image, mask in expected.items()
        if mask is not None and any(is_file(file) for file in mask_files(root / mask))
    }
    uses = Counter(found.values())
    of_many = {image: mask for image, mask in found.items() if shared or uses[mask] > 1}
    for image in of_many.keys() - images_named(root, of_many):
        del found[image]
    return Found(
        tuple(
            Pair(names[image], image, root / image, root / found[image] if image in found else None, expected[image])
            for image in sorted(images)
        )
    )


def _listed_path(path: str, root: Path) -> str:
    return existing_end(path, root) or path


def _refuse_missing(images: Sequence[str], root: Path, source: str) -> None:
    missing = [image for image in images if not is_file(root / image)]
    if missing:
        raise DataError(
            f"the list file {root / source} names {len(missing)} files that don't exist: {listed(missing)}; "
            f"paths are relative to {root}"
        )


def _pattern_name(pattern: Wildcard, path: str) -> str:
    """Name an image by those parts of its path that the pattern leaves open."""
    if "**" in pattern.text:
        fixed = len(pattern.text.split("**", 1)[0].split("/")) - 1
        return _path_name("/".join(path.split("/")[fixed:]))
    steps = zip(path.split("/"), pattern.text.split("/"), strict=True)
    open_steps = [step for step, fixed in steps if has_wildcards(fixed)]
    if not open_steps or not has_wildcards(pattern.text.split("/")[-1]):
        open_steps.append(path.split("/")[-1])
    return _path_name("/".join(open_steps))


def _path_name(path: str) -> str:
    pure = PurePosixPath(path)
    steps = [step for step in (*pure.parts[:-1], pure.stem) if step not in ("/", "..")]
    return "-".join(steps)


def _names(labels: Iterable[tuple[str, str]], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """Make labels safe as file names and unique, also among names that are taken: image → name."""
    safe = {image: re.sub(r"[^\w.+-]+", "_", label).lstrip(".")[:120] or "image" for image, label in labels}
    counts = Counter(name.casefold() for name in (*safe.values(), *taken))
    return {
        image: name
        if counts[name.casefold()] == 1
        else f"{name}-{hashlib.sha256(image.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        for image, name in safe.items()
    }
