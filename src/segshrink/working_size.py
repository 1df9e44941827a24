"""The size at which a model works on an image: a share of its sides, a longest side, or one size for all.

Images are brought there bilinearly, in steps that at most halve a side so that every pixel counts, and logits back
bilinearly. PyTorch, ONNX Runtime, OpenVINO and LiteRT compute exactly that alike; antialiasing filters they don't.
Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from segshrink.errors import ModelError

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # of typing since Python 3.13

# Share of both sides; {"longest": pixels of the longer side}; or (height, width) in pixels.
Resize: TypeAlias = float | Mapping[str, int] | tuple[int, int]

LEAST_SHARE, LARGEST_SHARE, LARGEST_SIDE = 1 / 64, 8.0, 8192
LONGEST = "longest"
# Shares are fractions of whole numbers, so that every runtime rounds sizes alike.
_DENOMINATOR = 1000
# Steps that halve an image before the last one where only the image says by how much it shrinks: 32 times in all.
_HALVINGS = 4


def checked(value: Any) -> Resize:
    """Return a resize as files hold it, JSON-able or not, in its own types.

    Raises:
        ModelError: It is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and LEAST_SHARE <= value <= LARGEST_SHARE:
        return float(value)
    if isinstance(value, Mapping) and set(value) == {LONGEST} and _is_side(value[LONGEST]):
        return {LONGEST: value[LONGEST]}
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(map(_is_side, value)):
        return (value[0], value[1])
    raise ModelError(
        f"a working size is a share of the sides from 1/64 to 8, {{longest: pixels}} or [height, width], of 1 to "
        f"{LARGEST_SIDE} pixels, found {value!r:.60}"
    )


def depends_on_image(resize: Resize | None) -> TypeIs[Mapping[str, int] | tuple[int, int]]:
    """Whether only the whole image says how much smaller it becomes, so that tiles of it would become too large."""
    return resize is not None and not isinstance(resize, float)


def zoom(resize: Resize | None) -> float:
    """Return the factor of both sides; 1 where there is no fixed one."""
    return resize if isinstance(resize, float) else 1.0


def working_size(resize: Resize, height: int, width: int) -> tuple[int, int]:
    """Return the height and width at which a model works on an image, at least 1 pixel each.

    Example:
        >>> working_size(0.5, 375, 500), working_size({"longest": 250}, 375, 500), working_size((256, 256), 375, 500)
        ((188, 250), (188, 250), (256, 256))
    """
    if isinstance(resize, tuple):
        return resize
    numerator, denominator = share(resize) if isinstance(resize, float) else (resize[LONGEST], max(height, width))
    sides = ((2 * side * numerator + denominator) // (2 * denominator) for side in (height, width))
    rows, columns = (max(side, 1) for side in sides)
    return rows, columns


def share(factor: float) -> tuple[int, int]:
    """Return a share of the sides as numerator and denominator."""
    return Fraction(factor).limit_denominator(_DENOMINATOR).as_integer_ratio()


def halvings(resize: Resize) -> int:
    """Return how many steps come before the last one, each of which halves a side at most."""
    if not isinstance(resize, float):
        return _HALVINGS
    return max(math.ceil(math.log2(1 / resize)) - 1, 0)


def sizes_on_the_way(resize: Resize, height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes that an image takes on its way to the working size, which is the last; none where it has it.

    Example:
        >>> sizes_on_the_way(1 / 6, 300, 600)
        [(150, 300), (75, 150), (50, 100)]
    """
    rows, columns = working_size(resize, height, width)
    sizes = [(height, width)]
    for _ in range(halvings(resize)):
        height, width = max(-(-height // 2), rows), max(-(-width // 2), columns)
        sizes.append((height, width))
    sizes.append((rows, columns))
    return [size for before, size in pairwise(sizes) if size != before]


def pixels_of_stride(resize: Resize | None, stride: int) -> int:
    """Return the fewest pixels of an image, along a side, that become a multiple of a network's stride.

    Example:
        >>> pixels_of_stride(0.5, 32), pixels_of_stride(2.0, 32), pixels_of_stride(None, 32)
        (64, 16, 32)
    """
    if not isinstance(resize, float):
        return stride
    numerator, denominator = share(resize)
    return stride * denominator // math.gcd(stride * denominator, numerator)


def in_words(resize: Resize) -> str:
    """Return a resize as people read it, after "works at"."""
    if isinstance(resize, float):
        return f"{resize:g} of the image's height and width"
    if isinstance(resize, tuple):
        return f"{resize[0]} × {resize[1]} pixels (height × width), whatever the image's size"
    return f"{resize[LONGEST]} pixels on the image's longer side"


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_SIDE
