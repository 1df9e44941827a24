"""What masks hold before anybody has said what it means, and which pairs are broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.colors import format_color
from segshrink.data.store import Progress
from segshrink.errors import DataError, SegshrinkError
from segshrink.imagery import MaskOptions, probe, read_mask
from segshrink.imagery.masks import drawn_from, resized_mask
from segshrink.imagery.raster_files import open_pillow, read_header
from segshrink.imagery.reading import transparency_shares

# Of more pairs than this so many, evenly spaced, are looked at.
MOST_PAIRS = 2000
# More values or colors than this are no classes.
MOST_KINDS = 64
# A value and a color that no mask holds: all that a mask holds is undeclared then, and counted.
_BY_VALUE = ClassMap(("nothing",), ((1, 2, 3),), values=(65535,))
_BY_OTHER_VALUE = ClassMap(("nothing",), ((1, 2, 3),), values=(65534,))
_BY_COLOR = ClassMap(("nothing",), ((1, 2, 3),))
# A mask has at most the bands of colors.
_MOST_BANDS = 3
# What a mask holds, and its (height, width).
_Held = tuple[Counter[str | int], tuple[int, int]]


@dataclass
class MaskSurvey:
    """What was seen in pairs of images and masks.

    Attributes:
        looked: How many pairs were looked at.
        pixels: Color "#RRGGBB" or value → pixels, of all masks together.
        by_image: The same for each image.
        broken: Image → why it and its mask can't be used.
        resized: How many masks have another size than their image, but its proportions.
        sizes: (height, width) of the images that were looked at.
        palette: Value → color of the first palette mask.
        by_label: Whether masks are drawn by labels, which stand where colors or values do.
        bands: Bands of the first image.
        dtype: Its data type.
    """

    looked: int = 0
    pixels: Counter[str | int] = field(default_factory=Counter)
    by_image: dict[str, Counter[str | int]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    resized: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    palette: dict[int, str] = field(default_factory=dict)
    by_label: bool = False
    bands: int = 3
    dtype: str = "uint8"

    @property
    def in_color(self) -> bool:
        """Whether masks are in colors."""
        return not self.by_label and any(isinstance(value, str) for value in self.pixels)

    @property
    def shares(self) -> dict[str | int, float]:
        """Color or value → share of all pixels, 0 to 1, the largest first."""
        total = max(sum(self.pixels.values()), 1)
        return {value: count / total for value, count in self.pixels.most_common()}


def survey_masks(
    root: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    labels: Sequence[str] = (),
    options: MaskOptions | None = None,
    progress: Progress | None = None,
) -> MaskSurvey:
    """Look at pairs of images and masks; of very many at an even sample.

    Args:
        root: The folder.
        pairs: (image, mask) relative to it.
        labels: What may stand on masks that are drawn by labels; none where pixels are the mask.
        options: How masks are read.
        progress: Called with (pairs done, all pairs) after each.
    """
    step = -(-len(pairs) // MOST_PAIRS)
    chosen = pairs[:: max(step, 1)]
    options = options or MaskOptions()
    read = partial(_held, options=options)
    if labels:
        survey = _look(root, chosen, partial(_drawn, classes=ClassMap.build(labels), options=options), progress)
        survey.by_label = True
        return survey
    try:
        return _look(root, chosen, partial(read, classes=_BY_VALUE), progress)
    except _ColorsError:
        survey = _look(root, chosen, partial(read, classes=_BY_COLOR), progress)
    _leave_out_numbers(survey, root, dict(chosen))
    return survey


def _leave_out_numbers(survey: MaskSurvey, root: Path, masks: Mapping[str, str]) -> None:
    """Leave out masks of numbers among masks in colors: those of one band with a gray that no mask in colors has.

    Raises:
        DataError: They are as many.
    """
    one_band = {
        image
        for image in survey.by_image
        if probe(root / masks[image]).bands == 1 and not _palette_of(root / masks[image])
    }
    colors = {color for image, held in survey.by_image.items() if image not in one_band for color in held}
    numbers = [image for image in one_band if not colors.issuperset(survey.by_image[image])]
    if not numbers or not colors:
        return
    example, other = masks[min(numbers)], masks[min(survey.by_image.keys() - one_band)]
    if 2 * len(numbers) >= survey.looked:
        raise DataError(
            f"some masks hold numbers ({example}) and some colors ({other}), as those of two data sets do; give the "
            "folder of one of them"
        )
    for image in numbers:
        place = list(survey.by_image).index(image)
        del survey.sizes[place]
        survey.pixels -= survey.by_image.pop(image)
        survey.looked -= 1
        survey.broken[image] = f"{masks[image]} holds numbers, and most masks colors ({other})"


def _look(
    root: Path, pairs: Sequence[tuple[str, str]], read: Callable[[Path, Path], _Held], progress: Progress | None
) -> MaskSurvey:
    """Look at pairs; raises _ColorsError where a mask is in colors and ``read`` expects values."""
    survey = MaskSurvey()
    for number, (image, mask) in enumerate(pairs, start=1):
        try:
            found, shape = read(root / mask, root / image)
            info = probe(root / image)
            _note(survey, image, mask, found, shape, (info.height, info.width))
            if survey.looked == 1:
                survey.bands, survey.dtype = info.bands, info.dtype
                survey.palette = _palette_of(root / mask)
        except SegshrinkError as error:
            survey.broken[image] = str(error)
        if progress is not None:
            progress(number, len(pairs))
    return survey


class _ColorsError(Exception):
    """A mask is in colors."""


def _held(mask: Path, image: Path, *, classes: ClassMap, options: MaskOptions) -> _Held:
    """Count what a mask of pixels holds."""
    info = probe(mask)
    if info.bands > _MOST_BANDS:
        raise DataError(f"{mask} has {info.bands} bands; give one band of class numbers, of bands a class the argmax")
    found: Counter[str | int] = Counter()
    for each in (classes,) if classes.values is None else (classes, _BY_OTHER_VALUE):
        try:
            read_mask(mask, each, options=options)
        except UndeclaredError as error:
            found |= Counter(error.found)
        except DataError as error:
            if each.values is not None and "in colors" in str(error):
                raise _ColorsError from error
            raise
        if found.total() == info.height * info.width:
            break
    if not found:
        raise DataError(f"{mask} holds nothing but no-data")
    if (
        info.transparency is not None
        and set(found) <= {0, IGNORE_INDEX, "#000000"}
        and transparency_shares(mask, info.transparency)[0]
    ):
        raise DataError(
            f"{mask}: all but 0 is transparent, as where bands stand for classes; give one band of class numbers"
        )
    return found, (info.height, info.width)


def _drawn(mask: Path, image: Path, *, classes: ClassMap, options: MaskOptions) -> _Held:
    """Count the labels of a mask that is drawn."""
    drawn = read_mask(mask, classes, image=image, options=options)
    counts = np.bincount(drawn.reshape(-1), minlength=256)
    held = {name: int(count) for name, count in zip(classes.names, counts, strict=False) if count}
    return Counter(held), (drawn.shape[0], drawn.shape[1])


def _note(
    survey: MaskSurvey,
    image: str,
    mask: str,
    found: Counter[str | int],
    shape: tuple[int, int],
    size: tuple[int, int],
) -> None:
    if shape != size:
        if resized_mask(np.empty(shape, np.uint8), size) is None:
            raise DataError(f"{mask} is {shape[0]} × {shape[1]} pixels, {image} {size[0]} × {size[1]}")
        survey.resized += 1
    survey.looked += 1
    survey.sizes.append(size)
    survey.pixels += found
    survey.by_image[image] = found


def _palette_of(mask: Path) -> dict[int, str]:
    if drawn_from(mask) or not read_header(mask).by_pillow:
        return {}
    with open_pillow(mask) as picture:
        if picture.mode != "P":
            return {}
        colors = picture.getpalette("RGB") or []
    return {index: format_color(colors[3 * index : 3 * index + 3]) for index in range(len(colors) // 3)}
