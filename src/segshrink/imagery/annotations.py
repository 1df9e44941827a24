"""Masks from files of annotations: which format a file has, which of its images is meant, and what its labels mean."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.errors import DataError, FileError
from segshrink.file_search import is_file
from segshrink.imagery.annotation_formats import AnnotationFile, ImageAnnotations, parse_cvat, parse_json, parse_yolo
from segshrink.imagery.mask_options import ANY_LABEL, MaskOptions, label_key
from segshrink.imagery.reading import probe

ANNOTATION_SUFFIXES = (".json", ".xml", ".txt")
_PARSERS = {".json": parse_json, ".xml": parse_cvat, ".txt": parse_yolo}


class Likeness(NamedTuple):
    """How much a name in a file of annotations is like an image's path; the greater, the more.

    Attributes:
        end: Steps that both end with.
        whole: Whether these are all steps of the name.
        beginning: Steps that the paths of the image and of the file begin with.
    """

    end: int
    whole: bool
    beginning: int


def read_annotation_file(path: Path) -> AnnotationFile | None:
    """Read a file of annotations, whose format is told by its content; None for a JSON file that is none, as GeoJSON.

    Raises:
        FileError: The file is missing, unreadable or damaged; says what is wrong in it.
    """
    path = Path(path)
    if path.suffix.lower() not in ANNOTATION_SUFFIXES:
        return None
    if not is_file(path):
        raise FileError(f"{path} does not exist or is no file; check the path")
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _parsed(path: Path, modified: int, size: int) -> AnnotationFile | None:
    """Read a file once, however many images it annotates; the other arguments tell when it has changed."""
    try:
        return _PARSERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check its permissions") from error
    except KeyError as error:
        raise FileError(f"{path} can't be read as annotations: {error} is missing; export them again") from error
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise FileError(f"{path} can't be read as annotations ({error}); export them again") from error


def annotation_kind(path: Path) -> str | None:
    """Return the format of a file of annotations, "damaged" where it can't be read; None where it is none."""
    try:
        content = read_annotation_file(path)
    except FileError:
        return "damaged"  # how, reading tells
    return None if content is None else content.kind


def annotations_of(path: Path, image: Path) -> ImageAnnotations | None:
    """Return what a file says of an image, which it names by a path with the same end; None where it names it not.

    Raises:
        FileError: As ``read_annotation_file``.
        DataError: Several images in the file are it just as well.
    """
    content = read_annotation_file(path)
    if content is None or "" in content.images:
        return None if content is None else content.images[""]
    _, best = most_alike(path, content, image)
    if len(best) > 1:
        raise DataError(f"{path} names {best[0]} and {best[1]}, and {image} may be each; give them different names")
    return content.images[best[0]] if best else None


def images_of(path: Path, images: Iterable[Path]) -> set[Path]:
    """Return which images a file speaks of: each name in it means the one image that is most like it.

    All, where the file names no images: polygons, and annotations of one image.

    Raises:
        FileError: As ``read_annotation_file``.
        DataError: A name means several images just as well.
    """
    content = read_annotation_file(path)
    if content is None or "" in content.images:
        return set(images)
    claims: dict[str, dict[Path, Likeness]] = defaultdict(dict)
    for image in images:
        likeness, names = most_alike(path, content, image)
        for name in names:
            claims[name][image] = likeness
    meant = set()
    for name, alike in claims.items():
        best = [image for image, likeness in alike.items() if likeness == max(alike.values())]
        if len(best) > 1:
            raise DataError(
                f"{path} names {name}, which may be {best[0]} or {best[1]}; write the folder before the name, or leave "
                "one of them out of 'images'"
            )
        meant.add(best[0])
    return meant


def most_alike(path: Path, content: AnnotationFile, image: Path) -> tuple[Likeness, list[str]]:
    """Return those names in a file of annotations that are most like an image's path, and how much they are so."""
    steps = Path(os.path.abspath(image)).parts  # noqa: PTH100  # keeps links
    beginning = _shared(steps, Path(os.path.abspath(path)).parts)  # noqa: PTH100
    alike = {}
    for name in content.by_file_name.get(image.name, ()):
        other = PurePosixPath(name.replace("\\", "/")).parts
        end = _shared(reversed(steps), reversed(other))
        alike[name] = Likeness(end, end == len(other), beginning)
    best = max(alike.values(), default=Likeness(0, False, 0))
    return best, [name for name, likeness in alike.items() if likeness == best]


def _shared(first: Iterable[str], second: Iterable[str]) -> int:
    """Count the steps with which two paths begin alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def read_annotated_mask(path: Path, image: Path, classes: ClassMap, options: MaskOptions) -> NDArray[np.uint8]:
    """Draw the mask of an image from annotations; later shapes lie over earlier ones.

    Labels are names of classes, in any case, or what ``options.labels`` says; YOLO's numbers count the classes beside
    the background. Of COCO a pixel is what pycocotools says; of others it belongs to the shape that holds its center.

    Returns:
        (H, W) class indices, 255 where ignored, in the size that the file says, else in the image's.

    Raises:
        FileError: A file is missing, unreadable or damaged.
        DataError: The file doesn't name the image.
        UndeclaredError: Shapes have a label that is none of the classes'; ``found`` counts their pixels.
        MissingExtraError: COCO needs ``segshrink[coco]``.
    """
    annotated = annotations_of(path, image)
    content = read_annotation_file(path)
    if annotated is None or content is None:
        raise DataError(f"{path} doesn't name the image {image.name}; add it, or leave the image out")
    size = annotated.size
    if size is None:
        info = probe(image)
        size = info.height, info.width
    background = options.background_index(classes, guess=True)
    table = options.label_table(classes)
    if content.kind == "YOLO":
        drawn = [index for index in range(len(classes)) if index != background]
        numbers: dict[str | None, int] = {str(number): index for number, index in enumerate(drawn)}
        names = set(map(label_key, classes.names))
        table = numbers | {key: index for key, index in table.items() if key not in names}
    mask = np.full(size, background, dtype=np.uint8)
    undeclared: dict[str | int, int] = {}
    try:
        for label, paint in annotated.shapes:
            index = table.get(label_key(label), table.get(ANY_LABEL))
            if index is None:
                area = np.zeros(size, dtype=np.uint8)
                paint(area, 1)
                if area.any():
                    undeclared[label] = undeclared.get(label, 0) + int(area.sum(dtype=np.int64))
            paint(mask, IGNORE_INDEX if index is None else index)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise FileError(f"{path} can't be drawn ({error}); export it again") from error
    if undeclared and not options.tolerant:
        shown = ", ".join(f"{label} ({pixels} pixels)" for label, pixels in undeclared.items())
        raise UndeclaredError(
            f"undeclared labels of {image.name}: {shown}; declare them as classes, as 'labels' of a class, or under "
            "'ignore_labels'",
            undeclared,
        )
    return mask
