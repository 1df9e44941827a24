"""Choosing bands of a raster by number or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segshrink.errors import DataError, nearest
from segshrink.imagery.reading import has_palette, palette_table

# Colours that say nothing about what a band shows.
_NAMELESS = (ColorInterp.undefined, ColorInterp.palette)


@dataclass(frozen=True)
class Bands:
    """Bands that were chosen from a raster.

    Attributes:
        numbers: Numbers in the file, from 1, in the order wanted.
        names: What they are called; their number where nothing says.
        alpha: Number of the file's transparency band; chosen or not; None without one.
        palette: (256, 3) colours of a palette image, whose single band is read through it; else None.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    alpha: int | None = None
    palette: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.numbers) if self.palette is None else 3


def choose_bands(dataset: Any, wanted: Sequence[int | str] | None, *, count: int | None, name: str) -> Bands:
    """Choose bands of an open rasterio dataset.

    Args:
        dataset: The dataset.
        wanted: Numbers from 1 ("3" is one, too), descriptions or colours, in any case; None is all but transparency,
            or all with it where only that makes ``count`` bands.
        count: How many must come out; None for any.
        name: What errors call the file.

    Raises:
        DataError: A band doesn't exist or a name fits several; others than ``count`` come out.
    """
    alpha = _transparency(dataset)
    if wanted is None and has_palette(dataset) and count in (None, 3):
        return Bands((1,), ("red", "green", "blue"), None, palette_table(dataset))
    titles = [_title(dataset, number) for number in range(1, dataset.count + 1)]
    if wanted is None:
        numbers = tuple(number for number in range(1, dataset.count + 1) if number != alpha) or (1,)
        if count == dataset.count:
            numbers = tuple(range(1, dataset.count + 1))
    else:
        numbers = tuple(_number(dataset, band, titles, name) for band in wanted)
    if not numbers:
        raise DataError(f"no band of {name} was chosen; it has {_listed(titles)}")
    if count is not None and len(numbers) != count:
        example = ",".join(str(min(number, len(titles))) for number in range(1, count + 1))
        told = f"{len(numbers)} of {name} were chosen" if wanted else f"{name} has {_listed(titles)}"
        raise DataError(
            f"the model takes {count} band{'s' * (count > 1)} but {told}; choose with --bands, such as "
            f"--bands {example}"
        )
    return Bands(numbers, tuple(titles[number - 1] for number in numbers), alpha)


def _transparency(dataset: Any) -> int | None:
    """Return the number of the transparency band; one that is described as something else is none."""
    descriptions = _descriptions(dataset)
    for number, color in enumerate(dataset.colorinterp, start=1):
        if color == ColorInterp.alpha and "alpha" in descriptions.get(number, "alpha"):
            return number
    return None


def _number(dataset: Any, band: int | str, titles: Sequence[str], name: str) -> int:
    if isinstance(band, int) or band.strip().isdecimal():
        number = int(band)
        if not 1 <= number <= dataset.count:
            raise DataError(f"{name} has no band {number}; it has {_listed(titles)}")
        return number
    for known in (_descriptions(dataset), _colors(dataset)):
        fitting = [number for number, title in known.items() if title == _plain(band)]
        if len(fitting) > 1:
            numbers = ", ".join(map(str, fitting))
            raise DataError(f"{name} has several bands '{band}' ({numbers}); choose by number")
        if fitting:
            return fitting[0]
    names = [title for title in titles if not title.isdecimal()]
    hint = nearest(band, names) if names else ""
    raise DataError(f"{name} has no band '{band}'{hint}; choose by number from {_listed(titles)}")


def _descriptions(dataset: Any) -> dict[int, str]:
    return {number: _plain(text) for number, text in enumerate(dataset.descriptions, start=1) if text}


def _colors(dataset: Any) -> dict[int, str]:
    return {
        number: _plain(color.name)
        for number, color in enumerate(dataset.colorinterp, start=1)
        if color not in _NAMELESS
    }


def _title(dataset: Any, number: int) -> str:
    return dataset.descriptions[number - 1] or _colors(dataset).get(number) or str(number)


def _plain(text: str) -> str:
    plain = text.strip().casefold().replace("_", " ").replace("-", " ")
    return "gray" if plain == "grey" else plain


def _listed(titles: Sequence[str]) -> str:
    shown = ", ".join(
        str(number) if title == str(number) else f"{number} ({title})" for number, title in enumerate(titles, start=1)
    )
    return f"{len(titles)} band{'s' * (len(titles) > 1)}: {shown}"
