"""Finding out which files of a folder are annotations, polygons or folders of masks a class, and of which images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from segshrink.data.class_guess import Ask
from segshrink.data.layout import IMAGE_SUFFIXES, Layout
from segshrink.data.pairing import images_named
from segshrink.data.path_words import (
    drawbacks,
    is_mask_word,
    mask_paths,
    may_name_a_class,
    role_words,
    without_drawings,
    words_of,
)
from segshrink.data.wildcards import common_wildcard
from segshrink.errors import DataError, SegshrinkError
from segshrink.formatting import listed
from segshrink.imagery import MaskOptions
from segshrink.imagery.annotations import ANNOTATION_SUFFIXES, Likeness, most_alike, read_annotation_file
from segshrink.imagery.georeference import read_georeference
from segshrink.imagery.masks import CLASS_PART
from segshrink.imagery.vector_masks import VECTOR_SUFFIXES, attribute_values

# Attributes that name a class, the most telling first.
_FIELDS = re.compile(r"(?i)class(_?name)?|label|type|category|kind|name|landuse|land_cover|code")
_MOST_LABELS = 254


@dataclass(frozen=True)
class LabeledLayout:
    """Images and what their masks are drawn from.

    Attributes:
        layout: The pairs.
        source: What the masks are drawn from, such as "COCO annotations".
        labels: Label in the files → the class's name, in the order of the classes.
        colors: Label → "#RRGGBB", where a file says it.
        options: How the masks are read.
    """

    layout: Layout
    source: str
    labels: dict[str, str]
    colors: dict[str, str]
    options: MaskOptions


def find_labeled_layout(root: Path, names: Sequence[str], layout: Layout | None, ask: Ask) -> LabeledLayout | None:
    """Look for annotations (COCO, CVAT, LabelMe, YOLO), polygons on the ground, and masks in a folder a class.

    Args:
        root: The folder.
        names: All files in it, relative to it.
        layout: Pairs that were found by names, which may be images with polygons each.
        ask: Answers which attribute of polygons names their class, where several may.

    Returns:
        What is there for most images; None where there is nothing of it.

    Raises:
        DataError: Annotations are damaged or hold boxes only; polygons have no class that can be told.
    """
    images = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    if layout is not None and Path(layout.pairs[0][1]).suffix.lower() in VECTOR_SUFFIXES:
        return _from_polygons(root, dict(layout.pairs), [*dict(layout.pairs), *layout.unpaired], ask)
    if layout is not None:
        each_class = _from_folders(images)
        return each_class if each_class and _is_better(each_class, layout) else None
    found = [_from_annotations(root, names, without_drawings(images)), _from_folders(images)]
    best = max((each for each in found if each), key=lambda each: len(each.layout.pairs), default=None)
    polygons = [name for name in names if PurePosixPath(name).suffix.lower() in VECTOR_SUFFIXES]
    if best is not None or len(polygons) != 1:
        return best
    return _from_polygons(root, dict.fromkeys(_on_the_ground(root, images), polygons[0]), images, ask)


def _from_annotations(root: Path, names: Sequence[str], images: Sequence[str]) -> LabeledLayout | None:
    """Take the format that annotates most images; of several files that name an image the one that is most like it."""
    ranked: dict[str, dict[str, tuple[Likeness, int, str]]] = defaultdict(dict)
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    colors: dict[str, str] = {}
    damaged: list[str] = []
    by_stem: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_stem[PurePosixPath(image).stem].append(image)
    for name in names:
        if PurePosixPath(name).suffix.lower() not in ANNOTATION_SUFFIXES:
            continue
        own = by_stem.get(PurePosixPath(name).stem, [])
        if PurePosixPath(name).suffix.lower() == ".txt" and not (own and _begins_with_a_number(root / name)):
            continue
        try:
            content = read_annotation_file(root / name)
            if content is None:
                continue
        except SegshrinkError as error:
            damaged += [str(error)] if own or name.lower().endswith(".json") else []
            continue
        candidates = [image for image in images if PurePosixPath(image).name in content.by_file_name]
        if "" in content.images:
            candidates = sorted(own, key=lambda image: -_alike(image, name))[:1]
        for image in candidates:
            rank = (most_alike(root / name, content, root / image)[0], _alike(image, name), name)
            ranked[content.kind][image] = max(rank, ranked[content.kind].get(image, rank))
        labels[content.kind] |= dict.fromkeys(content.labels)
        colors |= content.colors
    kind = max(ranked, key=lambda kind: len(ranked[kind]), default=None)
    if damaged and kind is None:
        raise DataError(f"the annotations in {root} can't be used: {damaged[0]}")
    if kind is None:
        return None
    pairs = {image: name for image, (*_, name) in ranked[kind].items()}
    if kind in ("COCO", "CVAT"):  # whose files name their images
        meant = images_named(root, pairs)
        pairs = {image: name for image, name in pairs.items() if image in meant}
    named = {label: label for label in labels[kind]}
    if kind == "YOLO":
        listed_names = _yolo_names(root, names)
        numbers = sorted({*map(int, named), *range(len(listed_names))})
        named = {str(n): listed_names[n] if n < len(listed_names) else f"class-{n}" for n in numbers}
    options = MaskOptions(labels=tuple((label, label) for label in named))
    return LabeledLayout(_layout(pairs, images), f"{kind} annotations", named, colors, options)


def _begins_with_a_number(file: Path) -> bool:
    """Whether a text may be YOLO's; an empty one says that nothing is on its image."""
    try:
        words = file.read_text(encoding="utf-8-sig")[:100].split()
    except (OSError, ValueError):
        return False
    return not words or words[0].isdecimal()


def _alike(image: str, annotations: str) -> int:
    """Count the words that two paths share."""
    return sum((Counter(words_of(image)) & Counter(words_of(annotations))).values())


def _yolo_names(root: Path, names: Iterable[str]) -> list[str]:
    """Return the names that a YOLO data set's YAML file gives its numbers."""
    for name in names:
        if PurePosixPath(name).suffix.lower() not in (".yaml", ".yml"):
            continue
        try:
            content = yaml.safe_load((root / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        given = content.get("names") if isinstance(content, Mapping) else None
        if isinstance(given, Mapping) and all(isinstance(key, int) for key in given):
            return [str(given.get(number, f"class-{number}")) for number in range(max(given, default=-1) + 1)]
        if isinstance(given, list):
            return [str(entry) for entry in given]
    return []


def _from_folders(images: Sequence[str]) -> LabeledLayout | None:
    """Look for masks/CLASS/x.png or masks/x_CLASS.png of images x, where several classes have masks of one image."""
    masks = mask_paths(images)
    plain: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for image in images:
        if image not in masks:
            plain[words_of(PurePosixPath(image).stem)].append(image)
    found: dict[object, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    classes: dict[object, dict[str, None]] = defaultdict(dict)
    for mask in sorted(masks):
        for kind, template, name, stem in _class_masks(mask, plain):
            found[kind][template].append(stem)
            classes[kind][name] = None
    best: dict[str, str] = {}
    names: list[str] = []
    for kind, templates in found.items():
        pairs = {
            min(plain[stem[0]], key=lambda image: (drawbacks(image, template)[0], -_alike(image, template))): template
            for template, stem in templates.items()
        }
        several = sum(map(len, templates.values())) > len(templates)
        if several and len(classes[kind]) > 1 and len(pairs) > len(best):
            best, names = pairs, list(classes[kind])
    if not best:
        return None
    places = {PurePosixPath(image).parent.name for image in best}
    kept = [image for image in images if image not in masks and PurePosixPath(image).parent.name in places]
    return LabeledLayout(_layout(best, kept), "an image for each class", {n: n for n in names}, {}, MaskOptions())


def _is_better(each_class: LabeledLayout, layout: Layout) -> bool:
    """Whether masks of each class say more than pairs: these are of one class, or only say which pixels count."""
    image, mask = layout.pairs[0]
    templates = {template for _, template in each_class.layout.pairs}
    one_class = any(template.replace(CLASS_PART, name) == mask for template in templates for name in each_class.labels)
    beside_labels = drawbacks(image, mask)[-1] and 2 * len(templates) >= len(layout.pairs)
    return one_class or bool(beside_labels)


def _class_masks(
    mask: str, images: Mapping[tuple[str, ...], Sequence[str]]
) -> Iterator[tuple[object, str, str, tuple[str, ...]]]:
    """Yield how a mask may be one of a class: which such masks are alike, its path with "{class}", class, image."""
    path = PurePosixPath(mask)
    if len(path.parts) > 2 and any(map(is_mask_word, role_words(path.parts[-3]))):
        stem = words_of(path.stem)
        if stem in images and may_name_a_class(path.parent.name):
            home = path.parent.parent
            yield (home.name, path.suffix), f"{home}/{CLASS_PART}/{path.name}", path.parent.name, stem
    for gap in re.finditer(r"[\W_]+", path.stem):
        stem, name = words_of(path.stem[: gap.start()]), path.stem[gap.end() :]
        if stem in images and may_name_a_class(name) and not any(map(is_mask_word, words_of(name))):
            template = f"{path.parent}/{path.stem[: gap.end()]}{CLASS_PART}{path.suffix}".removeprefix("./")
            yield (path.suffix,), template, name, stem


def _from_polygons(root: Path, pairs: Mapping[str, str], images: Sequence[str], ask: Ask) -> LabeledLayout | None:
    """Tell classes by the attribute that names them, or take all polygons for one class that is called as the file."""
    if not pairs:
        return None
    files = list(dict.fromkeys(pairs.values()))
    fields = attribute_values(root / files[0], "class")[0]
    telling = [field for field in fields if _FIELDS.fullmatch(field)]
    telling.sort(key=lambda field: (field != "class", fields.index(field)))
    if not telling:
        stem = PurePosixPath(files[0]).stem if len(files) == 1 else "foreground"
        options = MaskOptions()
        return LabeledLayout(_layout(pairs, images), "polygons on the ground", {stem: stem}, {}, options)
    field = telling[0] if len(telling) == 1 else ask("which attribute of the polygons names a class?", telling)
    held = [value for file in files for value in attribute_values(root / file, field)[1]]
    values = {str(value) for value in held if value is not None}
    if not 0 < len(values) <= _MOST_LABELS:
        raise DataError(
            f"the attribute '{field}' of {files[0]} has {len(values)} values ({listed(list(values))}), which are no "
            "classes; write a description with 'mask_field' (docs/annotations.md)"
        )
    options = MaskOptions(field=field)
    named = {value: value for value in sorted(values)}
    return LabeledLayout(_layout(pairs, images), "polygons on the ground", named, {}, options)


def _on_the_ground(root: Path, images: Sequence[str]) -> Iterator[str]:
    """Yield the images that say where they lie."""
    for image in images:
        try:
            if read_georeference(root / image).crs is not None:
                yield image
        except SegshrinkError:
            continue


def _layout(pairs: Mapping[str, str], images: Sequence[str]) -> Layout:
    """Return the pairs with the wildcards that may lead to them."""
    unpaired = tuple(image for image in images if image not in pairs)
    masks = sorted(set(pairs.values()))
    texts = (
        common_wildcard(list(pairs), whole_stems=True),
        common_wildcard(masks, whole_stems=len(masks) == len(pairs) and CLASS_PART not in PurePosixPath(masks[0]).name),
    )
    return Layout(*texts, tuple(sorted(pairs.items())), unpaired)
