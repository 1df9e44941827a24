"""Class maps: names, colors and what is ignored; color or index masks to class indices and back."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.colors import Color, distinct_colors, format_color, parse_color
from segshrink.errors import ConfigError, DataError
from segshrink.formatting import printable, shortened

# The index of pixels without a label; torch's habit in segmentation.
IGNORE_INDEX = 255

# The classes of Pascal VOC by their index.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

# A class's name, its color or colors in masks, its value or values there.
Entry = tuple[str, str | Sequence[str] | None, int | Sequence[int] | None]

_IGNORE_COLORS: tuple[Color, ...] = ((0, 0, 0), (128, 128, 128), (255, 255, 255), (64, 64, 64))
_LARGEST_VALUE = 65535
# Letters of a class name.
_LONGEST_NAME = 128
# Unicode's categories of what commands a terminal, turns the direction of writing, breaks lines or isn't in XML:
# control characters, invisible formatting, half characters, private and unassigned ones, line and paragraph separators.
_NOT_IN_NAMES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
# Persian and Indian words need these.
_JOINERS = "\u200c\u200d"
# Numbers in masks are compared within these limits.
_BEYOND = 1 << 31
# Pixels that are looked up at once: enough to be fast, little enough to stay in the processor's cache.
_BLOCK = 1 << 18


class UndeclaredError(DataError):
    """A mask holds colors or values that no class and no ``ignore`` entry declares.

    Attributes:
        found: "#RRGGBB" or value → number of pixels, the most frequent first.
    """

    def __init__(self, message: str, found: Mapping[Any, int]) -> None:
        super().__init__(message)
        self.found = dict(found)

    def __reduce__(self) -> tuple[type[UndeclaredError], tuple[str, dict[Any, int]]]:
        return type(self), (str(self), self.found)


@dataclass(frozen=True)
class ClassMap:
    """What masks mean.

    Attributes:
        names: Class names, by class index.
        colors: (red, green, blue) in 0..255, by class index; what color masks hold, and what classes are drawn in.
        values: The numbers in index masks, by class index; None: masks are color masks.
        ignored_colors: Colors that carry no label.
        ignored_values: Values that carry no label.
        more_colors: Further (color, class index) of classes that have several in color masks.
        more_values: Further (value, class index) of classes that have several in index masks.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    values: tuple[int, ...] | None = None
    ignored_colors: tuple[Color, ...] = ()
    ignored_values: tuple[int, ...] = ()
    more_colors: tuple[tuple[Color, int], ...] = ()
    more_values: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE_INDEX:
            raise ConfigError(f"a class map holds 1 to {IGNORE_INDEX} classes, found {len(self.names)}")
        lengths = {len(self.names), len(self.colors), len(self.names if self.values is None else self.values)}
        if len(lengths) > 1:
            raise ConfigError("a class map needs one color (and one value, if any) for each class name")
        for number, name in enumerate(self.names, start=1):
            _refuse_name(number, name)
        _refuse_repeats("class name", self.names)
        if self.values is None:
            colors = (*self.colors, *(color for color, _ in self.more_colors), *self.ignored_colors)
            _refuse_repeats("mask color", [format_color(color) for color in colors])
        else:
            numbers = (*self.values, *(value for value, _ in self.more_values), *self.ignored_values)
            _refuse_repeats("mask value", numbers)
            for value in numbers:
                if not 0 <= value <= _LARGEST_VALUE:
                    raise ConfigError(f"mask values must be 0 to {_LARGEST_VALUE}, found {value}")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def build(
        cls,
        entries: Sequence[Entry | str],
        ignore: Sequence[str | int] = (),
        *,
        mask_kind: Literal["auto", "color", "index"] = "auto",
    ) -> ClassMap:
        """Build a class map from names, or from what a data set description says.

        Args:
            entries: A name, or (name, "#RRGGBB" or None, value or None), of each class, in class order. A class that
                masks hold in several colors or values has a list of them; it is drawn in the first.
            ignore: Colors or values without a label. In index masks 255 is ignored as well unless it is a class.
            mask_kind: "auto" is color if every class has a color and none has a value, else index. Index classes
                without values take 0, 1, 2, ... in order.

        Raises:
            ConfigError: Repeated names, colors or values; a color that isn't "#RRGGBB"; classes with and without
                values mixed; ``ignore`` of the other kind.

        Example:
            >>> classes = ClassMap.build([("Land", "#8429F6", None), ("Water", "#E2A929", None)], ignore=["#000000"])
            >>> classes.names
            ('Land', 'Water')
        """
        described = [(entry, None, None) if isinstance(entry, str) else entry for entry in entries]
        names = tuple(name for name, _, _ in described)
        all_colors = [[parse_color(color) for color in _several(given)] for _, given, _ in described]
        all_numbers = [_several(given) for _, _, given in described]
        parsed_colors = [colors[0] if colors else None for colors in all_colors]
        numbers = [values[0] if values else None for values in all_numbers]
        if mask_kind == "auto":
            mask_kind = "color" if None not in parsed_colors and all(number is None for number in numbers) else "index"
        ignored_colors = tuple(dict.fromkeys(parse_color(item) for item in ignore if isinstance(item, str)))
        ignored_values = tuple(dict.fromkeys(item for item in ignore if isinstance(item, int)))
        if mask_kind == "color":
            if ignored_values:
                raise ConfigError(f"ignore: masks are in colors, found the value {ignored_values[0]}; give '#RRGGBB'")
            colors = tuple(color for color in parsed_colors if color is not None)
            if len(colors) < len(names):
                bare = names[parsed_colors.index(None)]
                raise ConfigError(f"class '{bare}' has no color, but masks are in colors; add it")
            return cls(names, colors, None, ignored_colors, more_colors=_further(all_colors))
        if ignored_colors:
            first_ignored = format_color(ignored_colors[0])
            raise ConfigError(f"ignore: masks are class numbers, found the color {first_ignored}; give a number")
        values = tuple(number for number in numbers if number is not None) or tuple(range(len(names)))
        if len(values) < len(names):
            raise ConfigError(f"class '{names[numbers.index(None)]}' has no value, but others have; add it")
        more_values = _further(all_numbers)
        if IGNORE_INDEX not in (*values, *(value for value, _ in more_values), *ignored_values):
            ignored_values = (*ignored_values, IGNORE_INDEX)
        return cls(names, _completed(parsed_colors), values, (), ignored_values, more_values=more_values)

    @property
    def ignore_color(self) -> Color:
        """The color that pixels without a label are drawn in; never that of a class."""
        candidates = (*self.ignored_colors, *_IGNORE_COLORS)
        fallback = (color for color in distinct_colors() if color not in self.colors)
        return next((color for color in candidates if color not in self.colors), None) or next(fallback)

    def encode(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn a mask into class indices.

        Args:
            mask: (H, W, 3 or 4) uint8 colors (a fourth band is not looked at) or (H, W) whole numbers. With color
                classes an (H, W) uint8 mask is taken as shades of gray.

        Returns:
            (H, W) class indices, 255 where ignored.

        Raises:
            UndeclaredError: A color or value is neither a class nor ignored.
            DataError: The mask has another number of bands or another data type than the classes need.
        """
        mask = np.asarray(mask)
        if mask.ndim == 3 and mask.shape[2] == 1:
            mask = mask[:, :, 0]
        if mask.ndim not in (2, 3) or (mask.ndim == 3 and mask.shape[2] not in (3, 4)):
            raise DataError(f"a mask must be (H, W) or (H, W, 3 or 4), found shape {mask.shape}")
        return self._encode_colors(mask) if self.values is None else self._encode_values(mask, self.values)

    def colorize(self, index: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw (H, W) class indices as (H, W, 3) colors; ignored pixels in ``ignore_color``."""
        table = np.array(self.palette(), dtype=np.uint8).reshape(256, 3)
        return np.take(table, index, axis=0)

    def palette(self) -> list[int]:
        """Return 256 × (red, green, blue) for a palette PNG of class indices; 255 is ``ignore_color``."""
        rest = [self.ignore_color] * (256 - len(self))
        return [part for color in (*self.colors, *rest) for part in color]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping that ``from_dict`` reads back."""
        optional = {
            "values": self.values and list(self.values),
            "ignored_colors": [format_color(color) for color in self.ignored_colors],
            "ignored_values": list(self.ignored_values),
            "more_colors": [[format_color(color), index] for color, index in self.more_colors],
            "more_values": [list(pair) for pair in self.more_values],
        }
        mapping = {"names": list(self.names), "colors": [format_color(color) for color in self.colors]}
        return mapping | {key: value for key, value in optional.items() if value}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ClassMap:
        """Read back what ``to_dict`` gave.

        Raises:
            ConfigError: A part is missing or of the wrong kind.
        """
        try:
            values = mapping.get("values")
            return cls(
                names=tuple(str(name) for name in mapping["names"]),
                colors=tuple(parse_color(color) for color in mapping["colors"]),
                values=None if values is None else tuple(int(value) for value in values),
                ignored_colors=tuple(parse_color(color) for color in mapping.get("ignored_colors", ())),
                ignored_values=tuple(int(value) for value in mapping.get("ignored_values", ())),
                more_colors=tuple((parse_color(color), int(index)) for color, index in mapping.get("more_colors", ())),
                more_values=tuple((int(value), int(index)) for value, index in mapping.get("more_values", ())),
            )
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the class map is damaged ({type(error).__name__}: {error}); save it again") from error

    def _encode_colors(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        if mask.dtype == np.bool_:
            mask = mask.astype(np.uint8) * np.uint8(255)
        if mask.dtype != np.uint8:
            raise DataError(
                f"classes are given by color, found a mask of {mask.dtype} numbers; give the classes a value instead"
            )
        if mask.ndim == 2:
            mask = np.broadcast_to(mask[:, :, np.newaxis], (*mask.shape, 3))
        # One entry a color; untouched pages of the zeroed table cost no memory. 0 means undeclared.
        table = np.zeros(1 << 24, dtype=np.uint16)
        table[[_pack(color) for color in self.colors]] = np.arange(1, len(self) + 1)
        for color, number in self.more_colors:
            table[_pack(color)] = number + 1
        table[[_pack(color) for color in self.ignored_colors]] = IGNORE_INDEX + 1
        index, undeclared = _translated(mask, _packed, table)
        if undeclared:
            counts = {f"#{number:06X}": count for number, count in undeclared.items()}
            is_gray = all(number % 0x010101 == 0 for number in undeclared)
            hint = "; if they are class numbers, give the classes a value instead of a color" if is_gray else ""
            raise UndeclaredError(_undeclared("colors", counts) + hint, counts)
        return index

    def _encode_values(self, mask: NDArray[Any], values: tuple[int, ...]) -> NDArray[np.uint8]:
        if mask.ndim == 3:
            if not all(np.array_equal(mask[:, :, 0], mask[:, :, band]) for band in (1, 2)):
                raise DataError(
                    "classes are given by value, found a mask in colors; give the classes a color instead, in quotes"
                )
            mask = mask[:, :, 0]
        table = np.zeros(_LARGEST_VALUE + 2, dtype=np.uint16)
        table[list(values)] = np.arange(1, len(self) + 1)
        for value, number in self.more_values:
            table[value] = number + 1
        table[list(self.ignored_values)] = IGNORE_INDEX + 1
        index, undeclared = _translated(mask, _whole, table)
        if undeclared:
            raise UndeclaredError(_undeclared("values", undeclared), undeclared)
        return index


def _several(given: Any) -> list[Any]:
    """Return one thing, several or None as a list."""
    return [] if given is None else [given] if isinstance(given, str | int) else list(given)


def _further(by_class: Sequence[list[Any]]) -> tuple[tuple[Any, int], ...]:
    """Return what classes have beyond the first, with the class's index."""
    return tuple((given, index) for index, several in enumerate(by_class) for given in several[1:])


def _pack(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _packed(mask: NDArray[Any]) -> NDArray[np.intp]:
    """Pack (h, w, 3) colors into one number each."""
    packed = mask[:, :, 0].astype(np.intp)
    for band in (1, 2):
        packed <<= 8
        packed |= mask[:, :, band]
    return packed


def _whole(mask: NDArray[Any]) -> NDArray[np.intp]:
    """Check that a mask holds whole numbers."""
    if np.issubdtype(mask.dtype, np.inexact):
        # Nothing beyond these limits is declared, but it may not fit into a whole number.
        limited = np.clip(mask, -_BEYOND, _BEYOND)
        if not np.array_equal(limited, np.floor(limited)):
            raise DataError(
                f"a mask must hold whole numbers, found fractions or NaN ({mask.dtype}); set a no-data value"
            )
        mask = limited
    return mask.astype(np.intp)


def _translated(
    mask: NDArray[Any], numbered: Callable[[NDArray[Any]], NDArray[np.intp]], table: NDArray[np.uint16]
) -> tuple[NDArray[np.uint8], dict[int, int]]:
    """Look every pixel up in ``table`` (class + 1, 256 = ignored, 0 = undeclared), some rows at a time.

    Returns:
        (H, W) class indices, and number → pixels of what isn't declared, the most frequent first.
    """
    height, width = mask.shape[:2]
    index = np.empty((height, width), dtype=np.uint8)
    undeclared: Counter[int] = Counter()
    step = max(1, _BLOCK // max(width, 1))
    for row in range(0, height, step):
        numbers = numbered(mask[row : row + step])
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(table)):
            codes = np.where((numbers < 0) | (numbers >= len(table)), 0, table[np.clip(numbers, 0, len(table) - 1)])
        else:
            codes = table[numbers]
        if not codes.all():
            values, counts = np.unique(numbers[codes == 0], return_counts=True)
            undeclared.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        index[row : row + step] = codes - np.uint16(1)
    return index, dict(undeclared.most_common())


def _undeclared(kind: str, counts: Mapping[Any, int]) -> str:
    shown = ", ".join(f"{key} ({count} pixels)" for key, count in list(counts.items())[:8])
    more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    cause = "; so many look like a mask that was saved as JPEG or resized smoothly" if len(counts) > 64 else ""
    return f"undeclared {kind} in the mask: {shown}{more}; declare them as classes or under ignore{cause}"


def _refuse_name(number: int, name: str) -> None:
    """Raise ConfigError for a name that can't be shown, drawn and written into files; ``number`` counts from 1."""
    shown = printable(shortened(name, 60))
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"the name of class {number} must have 1 to {_LONGEST_NAME} letters, found {len(name)} ('{shown}')"
        )
    odd = [letter for letter in name if unicodedata.category(letter) in _NOT_IN_NAMES and letter not in _JOINERS]
    if odd:
        raise ConfigError(
            f"the name of class {number} ('{shown}') holds U+{ord(odd[0]):04X}, which can't be shown; leave it out"
        )


def _refuse_repeats(what: str, items: Sequence[Any]) -> None:
    earlier: set[Any] = set()
    for item in items:
        if item in earlier:
            raise ConfigError(f"the {what} {item!r} is given twice; each must be given once")
        earlier.add(item)


def _completed(colors: Sequence[Color | None]) -> tuple[Color, ...]:
    """Fill the gaps with default colors that aren't among the given ones."""
    taken = {color for color in colors if color is not None}
    fresh = (color for color in distinct_colors() if color not in taken)
    return tuple(next(fresh) if color is None else color for color in colors)
