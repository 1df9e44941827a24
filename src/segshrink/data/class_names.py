"""Reading what the classes of a folder are called, from the files that public data sets bring for it."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshrink.colors import format_color

# Files that list classes, the most telling first.
_FILES = re.compile(
    r"(?i)_?classes\.(csv|json|txt)|class_dict(_seg)?\.csv|label_?map\.txt|label_colou?rs?\.(txt|csv)|labels?\.(txt|csv)|"
    r"codes\.txt|meta\.json|class_names\.txt|.*colou?r_?map\.(csv|txt|json)|.*class.*\.(csv|json|txt)|"
    r"categor(y|ies)[a-z_]*\.(csv|json|txt)|object_?info.*\.(csv|txt)|.*config.*\.json"
)
_NAME_KEYS = ("name", "title", "class", "class_name", "classname", "label", "category")
_COLOR_KEYS = ("color", "colour", "hex", "rgb")
_VALUE_KEYS = ("pixel value", "value", "id", "index", "class_id", "label_id", "trainid", "pixel_value", "idx")
_LONGEST = 1_000_000


@dataclass(frozen=True)
class NamedClass:
    """A class as a file names it; color and value where the file gives them."""

    name: str
    color: str | None = None
    value: int | None = None


def find_class_names(root: Path, names: Iterable[str]) -> tuple[tuple[NamedClass, ...], str | None]:
    """Read the classes of the first file of ``names``, relative to ``root``, that lists some; and say which it was.

    A file that can't be read or lists nothing is passed over.
    """
    telling = sorted(
        (name for name in names if _FILES.fullmatch(name.rpartition("/")[2])), key=lambda name: (name.count("/"), name)
    )
    for name in telling:
        try:
            text = (root / name).read_text(encoding="utf-8-sig")[:_LONGEST]
            found = tuple(dict.fromkeys(_parsed(text, name)))
        except (OSError, ValueError, csv.Error, RecursionError):
            continue
        if len(found) > 1 and len({entry.name for entry in found}) == len(found):
            return found, name
    return (), None


def category_names(mask: Path) -> tuple[NamedClass, ...]:
    """Read the category names that GDAL keeps beside a raster (``.aux.xml``): value 0, 1, 2, ...; empty without."""
    try:
        text = mask.with_name(f"{mask.name}.aux.xml").read_text(encoding="utf-8")[:_LONGEST]
    except (OSError, ValueError):
        return ()
    titles = re.findall(r"<Category\s*/>|<Category>([^<]*)</Category>", text)
    names = [html.unescape(title).strip() for title in titles]
    return tuple(NamedClass(name, None, value) for value, name in enumerate(names) if name)


def _parsed(text: str, name: str) -> Iterator[NamedClass]:
    if name.lower().endswith(".json"):
        yield from _of_json(json.loads(text))
    elif name.lower().endswith(".csv"):
        yield from _of_table(text)
    else:
        lines = [line.strip() for line in text.splitlines()]
        if lines and "\t" in lines[0] and any(word.lower() in _NAME_KEYS for word in lines[0].split("\t")):
            yield from _of_table(text, "\t")
            return
        for line in lines:
            if line and not line.startswith("#") and (entry := _of_line(line)) is not None:
                yield entry


def _of_json(content: Any) -> Iterator[NamedClass]:
    """Read a list of names or of mappings, one below "classes", or a mapping of names, values and colors either way."""
    if isinstance(content, Mapping):
        inner = next(
            (content[key] for key in ("classes", "labels", "categories", "class_names") if key in content), None
        )
        if inner is not None:
            yield from _of_json(inner)
            return
        for key, given in content.items():
            if str(key).isdecimal() and isinstance(given, str):
                yield NamedClass(given, None, int(key))
            elif str(key).startswith("#") and isinstance(given, str):
                yield NamedClass(given, _color(key))
            elif isinstance(given, int | list | str):
                yield NamedClass(str(key), _color(given), given if type(given) is int else None)
    elif isinstance(content, list):
        for given in content:
            if isinstance(given, str):
                yield NamedClass(given)
            elif isinstance(given, Mapping):
                yield from _of_row(given)


def _of_table(text: str, separator: str = ",") -> Iterator[NamedClass]:
    rows = csv.DictReader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    for row in rows:
        yield from _of_row({str(key).strip(): str(value).strip() for key, value in row.items() if key and value})


def _of_row(row: Mapping[Any, Any]) -> Iterator[NamedClass]:
    lower = {str(key).lower(): value for key, value in row.items()}
    name = next((str(lower[key]) for key in _NAME_KEYS if key in lower and not str(lower[key]).isdecimal()), None)
    if name is None:
        return
    channels = [lower.get(key) for key in ("r", "g", "b")]
    if None in channels:
        channels = [lower.get(key) for key in ("red", "green", "blue")]
    given = next((lower[key] for key in _COLOR_KEYS if key in lower), None if None in channels else channels)
    value = next((int(lower[key]) for key in _VALUE_KEYS if str(lower.get(key, "")).isdecimal()), None)
    yield NamedClass(name, _color(given), value)


def _of_line(line: str) -> NamedClass | None:
    """Read "name", "3 name", "3: name", "name 3", "128 0 0 name" or "name:128,0,0::"."""
    line = re.sub(r"^(\d+)\s*:", r"\1 ", line)
    numbers = [int(number) for number in re.findall(r"(?<![\w.#])\d+(?![\w.])", line)]
    hexadecimal = re.search(r"#[0-9A-Fa-f]{6}", line)
    name = re.sub(r"#[0-9A-Fa-f]{6}|(?<![\w.#])\d+(?![\w.])", " ", line.split(":")[0]).strip(" \t,;=")
    if not re.search(r"[^\W\d_]", name) or len(name) > 60:
        return None
    if hexadecimal or len(numbers) >= 3:
        return NamedClass(name, _color(hexadecimal[0] if hexadecimal else numbers[-3:]))
    return NamedClass(name, None, numbers[0] if len(numbers) == 1 else None)


def _color(given: Any) -> str | None:
    if isinstance(given, str) and re.fullmatch(r"#?[0-9A-Fa-f]{6}", given):
        return f"#{given.removeprefix('#').upper()}"
    parts = re.findall(r"\d+", given) if isinstance(given, str) else given
    try:
        numbers = [int(part) for part in parts]
    except (TypeError, ValueError):
        return None
    return format_color(numbers) if len(numbers) == 3 and all(0 <= part <= 255 for part in numbers) else None
