"""Choosing bands of a raster by number, by name, or as a model takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segshrink.errors import DataError, nearest

# Colors that say nothing about what a band shows.
_NAMELESS = (ColorInterp.undefined, ColorInterp.palette)
# Titles that tell no band from another: numbers, what programs write unasked, and what GDAL calls any first band.
_UNTELLING = re.compile(r"(band|layer|channel|gray)?\s*\d*")
_SYNONYMS = {"grey": "gray", "near infrared": "nir", "r": "red", "g": "green", "b": "blue"}

# How a user says which bands are meant: an option of the command line, or a key of a data set description.
Remedy = Literal["--bands", "bands:"]


@dataclass(frozen=True)
class Bands:
    """Bands that were chosen from a raster.

    Attributes:
        numbers: Numbers in the file, from 1, in the order chosen.
        names: What they are called; their number where nothing says.
        alpha: Number of the file's transparency band; chosen or not; None without one.
        palette: (256, 3) colors of a palette image, whose single band is read through it; else None.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    alpha: int | None = None
    palette: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.numbers) if self.palette is None else 3

    @property
    def recorded_names(self) -> tuple[str, ...] | None:
        """Names as a model records them: its place (from 1) for a band that nothing names; None where that is all."""
        numbers = self.numbers * (len(self.names) // len(self.numbers))
        named = [telling(name) and number != self.alpha for name, number in zip(self.names, numbers, strict=True)]
        if not any(named):
            return None
        return tuple(
            name if tells else str(place)
            for place, (name, tells) in enumerate(zip(self.names, named, strict=True), start=1)
        )


def choose_bands(
    dataset: Any,
    chosen: Sequence[int | str] | None,
    *,
    count: int | None,
    name: str,
    model: Sequence[str] | None = None,
    remedy: Remedy = "--bands",
) -> Bands:
    """Choose bands of an open rasterio dataset.

    Args:
        dataset: The dataset.
        chosen: Numbers from 1 ("3" is one, too), descriptions or colors, in any case; None is all but transparency,
            or all with it where only that makes ``count`` bands.
        count: How many must come out; None for any.
        name: What errors call the file.
        model: What a model's bands are called, in its order; where nothing is ``chosen``, the file's bands are taken in
            that order. Names that the file or the model doesn't have are taken as they lie.
        remedy: How errors say that bands are chosen.

    Raises:
        DataError: A band doesn't exist or a name fits several; others than ``count`` come out; the names of file and
            model contradict each other.
    """
    alpha = transparency(dataset)
    if chosen is None and has_palette(dataset) and count in (None, 3):
        return Bands((1,), ("red", "green", "blue"), None, palette_table(dataset))
    titles = _titles(dataset)
    if chosen is not None:
        numbers = tuple(_number(dataset, band, titles, name) for band in chosen)
    elif model is not None and (matched := _matched(titles, alpha, model, name, remedy)) is not None:
        numbers = matched
    else:
        numbers = _as_they_lie(dataset.count, alpha, count)
    if not numbers:
        raise DataError(f"no band of {name} was chosen; it has {_listed(titles)}")
    if count is not None and len(numbers) != count:
        held = f"{len(numbers)} of {name} were chosen" if chosen else f"{name} has {_listed(titles)}"
        few = len(titles) < count and len(titles) > 1
        example = [1] * count if len(titles) == 1 else list(range(1, count + 1))
        cure = "give images that have them" if few else f"choose with {remedy}, such as {spelled(example, remedy)}"
        raise DataError(f"the model takes {count} band{'s' * (count > 1)} but {held}; {cure}")
    return Bands(numbers, tuple(titles[number - 1] for number in numbers), alpha)


def transparency(dataset: Any) -> int | None:
    """Return the number of the transparency band; one that is described as something else is none."""
    descriptions = _descriptions(dataset)
    for number, color in enumerate(dataset.colorinterp, start=1):
        if color == ColorInterp.alpha and "alpha" in descriptions.get(number, "alpha"):
            return number
    return None


def telling(name: str) -> bool:
    """Whether a band's name says what it shows."""
    return _UNTELLING.fullmatch(plain_name(name)) is None


def plain_name(text: str) -> str:
    """Return a band's name as it is compared: in any case, with spaces, "near infrared" as "nir"."""
    plain = " ".join(re.split(r"[\s_-]+", text.strip().casefold()))
    return _SYNONYMS.get(plain, plain)


def same_bands(names: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    """Whether two lists of band names may mean the same bands in the same order; so do names that say nothing."""
    return (
        names is None
        or others is None
        or all(
            plain_name(name) == plain_name(other) or not (telling(name) and telling(other))
            for name, other in zip(names, others, strict=True)
        )
    )


def spelled(numbers: Sequence[int], remedy: Remedy) -> str:
    """Write bands as a user chooses them."""
    texts = map(str, numbers)
    return f"--bands {','.join(texts)}" if remedy == "--bands" else f"bands: [{', '.join(texts)}]"


def has_palette(dataset: Any) -> bool:
    """Whether a rasterio dataset is one band of palette indices."""
    return bool(dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette and dataset.dtypes[0] == "uint8")


def palette_table(dataset: Any) -> NDArray[np.uint8]:
    """Return the (256, 3) colors of a palette dataset."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for number, color in dataset.colormap(1).items():
        table[number] = color[:3]
    return table


def _as_they_lie(held: int, alpha: int | None, count: int | None) -> tuple[int, ...]:
    if count == held:
        return tuple(range(1, held + 1))
    return tuple(number for number in range(1, held + 1) if number != alpha) or (1,)


def _matched(
    titles: Sequence[str], alpha: int | None, model: Sequence[str], name: str, remedy: Remedy
) -> tuple[int, ...] | None:
    """Return the bands that have the names of a model's; None where the file or the model names none."""
    held = {number: plain_name(title) for number, title in enumerate(titles, start=1) if telling(title)}
    wanted = [plain_name(title) if telling(title) else None for title in model]
    if not any(wanted) or not held.keys() - {alpha}:
        return None
    lying = _as_they_lie(len(titles), alpha, len(model))
    if len(lying) == len(model) and all(
        here == band or (here is None and band not in held.values()) or (band is None and here not in wanted)
        for here, band in zip((held.get(number) for number in lying), wanted, strict=True)
    ):
        return lying
    named = [[number for number, title in held.items() if title == band] for band in wanted]
    rest = [number for number in lying if number not in held]
    if all(len(numbers) == 1 for numbers, band in zip(named, wanted, strict=True) if band) and (
        wanted.count(None) in (0, len(rest))
    ):
        spare = iter(rest)
        return tuple(numbers[0] if band else next(spare) for numbers, band in zip(named, wanted, strict=True))
    free = iter(number for number in range(1, len(titles) + 1) if all([number] != numbers for numbers in named))
    guess = [numbers[0] if len(numbers) == 1 else next(free, None) for numbers in named]
    cure = "give images that have these bands"
    if None not in guess:
        cure = f"if they are the same, say so with {spelled([number or 0 for number in guess], remedy)}"
    raise DataError(f"the model takes the bands {', '.join(model)} but {name} has {_listed(titles)}; {cure}")


def _number(dataset: Any, band: int | str, titles: Sequence[str], name: str) -> int:
    if isinstance(band, int) or band.strip().isdecimal():
        number = int(band)
        if not 1 <= number <= dataset.count:
            raise DataError(f"{name} has no band {number}; it has {_listed(titles)}")
        return number
    for named in (_descriptions(dataset), _colors(dataset)):
        matches = [number for number, title in named.items() if title == plain_name(band)]
        if len(matches) > 1:
            raise DataError(f"{name} has several bands '{band}' ({', '.join(map(str, matches))}); choose by number")
        if matches:
            return matches[0]
    names = [title for title in titles if not title.isdecimal()]
    hint = nearest(band, names) if names else ""
    raise DataError(f"{name} has no band '{band}'{hint}; choose by number from {_listed(titles)}")


def _descriptions(dataset: Any) -> dict[int, str]:
    return {number: plain_name(text) for number, text in enumerate(dataset.descriptions, start=1) if text}


def _colors(dataset: Any) -> dict[int, str]:
    return {
        number: plain_name(color.name)
        for number, color in enumerate(dataset.colorinterp, start=1)
        if color not in _NAMELESS
    }


def _titles(dataset: Any) -> list[str]:
    colors = _colors(dataset)  # GDAL is asked about every band once, not once for every band
    return [text or colors.get(number) or str(number) for number, text in enumerate(dataset.descriptions, start=1)]


def _listed(titles: Sequence[str]) -> str:
    shown = ", ".join(
        str(number) if title == str(number) else f"{number} ({title})" for number, title in enumerate(titles, start=1)
    )
    return f"{len(titles)} band{'s' * (len(titles) > 1)}: {shown}"
