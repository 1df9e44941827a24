"""Naming what masks hold: values and colors become classes, as far as files beside them say what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segshrink.classes import IGNORE_INDEX, VOC_CLASSES
from segshrink.colors import format_color
from segshrink.data.class_names import NamedClass
from segshrink.data.mask_survey import MOST_KINDS, MaskSurvey
from segshrink.errors import DataError
from segshrink.formatting import listed, percent

# A question and its possible answers, the first of which is taken where nobody answers; any other text names a class.
Ask = Callable[[str, Sequence[str]], str]

_VOID = re.compile(r"(?i)unlabell?ed|void|ignored?|unknown|no[ _-]?data|out of roi|dontcare")
# Ids of objects are a class's value times this and a count, which stays below that, in Cityscapes and its kin.
_INSTANCES, _MOST_OBJECTS = 1000, 300
# Ids that count the objects of each image anew are told from this many objects on, in so many images.
_COUNTED, _COUNTED_IMAGES = 5, 3
# What masks of two values write beside 0.
_FULL = (1, IGNORE_INDEX, 65535)
# Colors of VOC's palette that no other common one has at these values.
_VOC_COLORS = {1: "#800000", 2: "#008000", 9: "#C00000", 15: "#C08080", 20: "#004080"}


@dataclass(frozen=True)
class GuessedClass:
    """A class of the description to write.

    Attributes:
        name: What it is called.
        mask: Its color or value in masks; None where the description lists names alone.
        color: What it is drawn in, where something says.
        share: Of the pixels that were looked at, 0 to 1.
        unsure: What should be checked; empty where files say it.
    """

    name: str
    mask: str | int
    color: str | None
    share: float
    unsure: str = ""


@dataclass(frozen=True)
class GuessedClasses:
    """All classes, what carries no label, and what was found listed but in no mask."""

    classes: tuple[GuessedClass, ...]
    ignored: tuple[GuessedClass, ...]
    absent: tuple[str, ...]


def guess_classes(survey: MaskSurvey, named: Sequence[NamedClass], *, source: str | None, ask: Ask) -> GuessedClasses:
    """Name what masks hold.

    Args:
        survey: What was seen in the masks.
        named: What a file lists.
        source: That file.
        ask: Answers what isn't sure.

    Raises:
        DataError: What masks hold can't be classes: smooth edges, or one value alone.
    """
    _refuse_what_is_no_class(survey, named)
    labels = _by_color(survey, named) if survey.in_color else _by_value(survey, named)
    classes: list[GuessedClass] = []
    ignored: list[GuessedClass] = []
    for value, share in sorted(survey.shares.items(), key=lambda item: _order(item[0], named)):
        name, unsure = labels.get(value, ("", ""))
        void = bool(_VOID.fullmatch(name)) or (not name and _carries_no_label(value, survey, named))
        if not name and not void:
            shown = value if isinstance(value, str) else f"class-{value}"
            default = f"color-{value[1:]}" if isinstance(value, str) else str(shown)
            what = f"nothing says what {value} is ({percent(share)} of the pixels in masks)"
            answer = ask(f"{what}: its class's name?", [default, "ignore"])
            void, name = answer == "ignore", answer
            unsure = "nothing says what this is" if answer == default else ""
        elif void and not name:
            unsure = "taken for 'no label', as nothing names it"
        color = value if isinstance(value, str) else survey.palette.get(value)
        listed_color = next((entry.color for entry in named if entry.name == name and entry.color), None)
        entry = GuessedClass(name or "no label", value, color or listed_color, share, unsure)
        (ignored if void else classes).append(entry)
    _refuse_one_class(classes, survey)
    known = {entry.name for entry in (*classes, *ignored)}
    absent = tuple(entry.name for entry in named if entry.name not in known) if source else ()
    return GuessedClasses(tuple(_unique(classes)), tuple(ignored), absent)


def guess_labels(survey: MaskSurvey, labels: Mapping[str, str], colors: Mapping[str, str]) -> GuessedClasses:
    """Name what masks hold that are drawn by labels.

    Args:
        survey: What was seen in the masks.
        labels: Label → the class's name, in the order of the classes.
        colors: Label → "#RRGGBB", where something says it.

    Raises:
        DataError: Masks hold one class alone.
    """
    entries = [
        GuessedClass(name, label, colors.get(label), survey.shares.get(label, 0.0)) for label, name in labels.items()
    ]
    seen = [entry for entry in entries if entry.share]
    classes = [entry for entry in seen if not _VOID.fullmatch(entry.name)]
    _refuse_one_class(classes, survey)
    absent = tuple(entry.name for entry in entries if not entry.share)
    return GuessedClasses(tuple(_unique(classes)), tuple(entry for entry in seen if entry not in classes), absent)


def guess_instances(survey: MaskSurvey, *, named: bool) -> int | Literal["all"] | None:
    """Tell what the values of masks of objects' ids are made of, as ``MaskOptions.instances``; None for no ids.

    Args:
        survey: What was seen in the masks.
        named: Whether a file names classes: then small values are theirs.
    """
    values = [value for value in survey.pixels if isinstance(value, int)]
    if len(values) < len(survey.pixels):
        return None
    if max(values, default=0) <= IGNORE_INDEX:
        return "all" if not named and _count_from_one(survey) else None
    objects = [value for value in values if value >= _INSTANCES]
    if objects and all(value < _INSTANCES * _INSTANCES and value % _INSTANCES < _MOST_OBJECTS for value in objects):
        return _INSTANCES
    return "all" if len(values) > MOST_KINDS else None


def _count_from_one(survey: MaskSurvey) -> bool:
    """Whether each mask holds 0 and all numbers up to one that differs from image to image, as counts of objects do."""
    counts = {tuple(sorted(int(value) for value in held)) for held in survey.by_image.values()}
    highest = max((len(values) - 1 for values in counts), default=0)
    counted = all(values == tuple(range(len(values))) for values in counts)
    return counted and len(counts) >= _COUNTED_IMAGES and highest >= _COUNTED


def _refuse_one_class(classes: Sequence[GuessedClass], survey: MaskSurvey) -> None:
    if len(classes) < 2:
        raise DataError(
            f"the masks hold {len(classes)} class ({listed([str(value) for value in survey.pixels], 6)}), and a "
            "segmentation needs two; give masks that also say where it is not"
        )


def _refuse_what_is_no_class(survey: MaskSurvey, named: Sequence[NamedClass]) -> None:
    kinds = len(survey.pixels)
    if negative := [value for value in survey.pixels if isinstance(value, int) and value < 0]:
        raise DataError(
            f"the masks hold {negative[0]}, and classes have no negative number; where it means 'no data', set it as "
            f"the files' no-data value (gdal_edit.py -a_nodata {negative[0]} MASK)"
        )
    if kinds > max(MOST_KINDS, len(named) + 2):
        raise DataError(
            f"the masks hold {kinds} different {'colors' if survey.in_color else 'values'}, as masks do that were "
            "resized smoothly or saved with loss; export a mask of class numbers, resized by nearest neighbor, or list "
            "the names of so many classes in a file classes.txt"
        )


def _by_color(survey: MaskSurvey, named: Sequence[NamedClass]) -> dict[str | int, tuple[str, str]]:
    return {
        entry.color: (entry.name, "") for entry in named if entry.color is not None and entry.color in survey.pixels
    }


def _by_value(survey: MaskSurvey, named: Sequence[NamedClass]) -> dict[str | int, tuple[str, str]]:
    """Return value → (name, what is unsure about it)."""
    values = sorted(value for value in survey.pixels if isinstance(value, int))
    by_color = {entry.color: entry.name for entry in named if entry.color}
    grays = {value: format_color((value, value, value)) for value in values if value <= IGNORE_INDEX}
    if by_color and len(grays) == len(values) and all(color in by_color for color in grays.values()):
        return {value: (by_color[color], "") for value, color in grays.items()}
    if by_color and all(survey.palette.get(value) in by_color for value in values if value != IGNORE_INDEX):
        return {
            value: (by_color[survey.palette[value]], "") for value in values if survey.palette.get(value) in by_color
        }
    if any(entry.value is not None for entry in named):
        return {entry.value: (entry.name, "") for entry in named if entry.value is not None}
    plain = [value for value in values if value != IGNORE_INDEX] if len(values) > 2 else values
    names = [entry.name for entry in named]
    if names and plain and plain[-1] < len(names):
        return {value: (name, "") for value, name in enumerate(names)}
    unsure = "named by the order of the list, check it"
    if len(names) == len(plain):
        return {value: (name, unsure) for value, name in zip(plain, names, strict=True)}
    if len(names) + 1 == len(plain) and plain[0] == 0:
        return {value: (name, unsure) for value, name in zip(plain, ["background", *names], strict=True)}
    if not names and 1 < plain[-1] <= 20 and _has_voc_palette(survey):
        return {value: (name, "named as in Pascal VOC, for its palette") for value, name in enumerate(VOC_CLASSES)}
    if len(plain) == 2 and plain[0] == 0 and plain[1] in _FULL:
        unsure = "a mask of two values, name them"
        return {0: ("background", unsure), plain[1]: ("foreground", unsure)}
    return {}


def _has_voc_palette(survey: MaskSurvey) -> bool:
    held = {value: color for value, color in survey.palette.items() if value in _VOC_COLORS}
    return bool(held) and all(_VOC_COLORS[value] == color for value, color in held.items())


def _carries_no_label(value: str | int, survey: MaskSurvey, named: Sequence[NamedClass]) -> bool:
    if isinstance(value, str):
        return value == "#000000" and any(entry.color in survey.pixels for entry in named)
    others = [other for other in survey.pixels if isinstance(other, int) and other != IGNORE_INDEX]
    return value == IGNORE_INDEX and len(others) > 1 and (bool(named) or max(others) < IGNORE_INDEX // 2)


def _order(value: str | int, named: Sequence[NamedClass]) -> tuple[int, str | int]:
    if isinstance(value, int):
        return 0, value
    colors = [entry.color for entry in named]
    return colors.index(value) if value in colors else len(colors), value


def _unique(classes: Sequence[GuessedClass]) -> list[GuessedClass]:
    """Refuse names that two values share."""
    names = [entry.name for entry in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(
            f"two values in the masks are called '{twice}'; give each a name, or merge them in the description"
        )
    return list(classes)
