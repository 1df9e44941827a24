"""Feature maps in whatever a module returns: inside tuples and dictionaries, as sequences of tokens, channels last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

# Class and register tokens that may stand before the tokens of the image.
_PREFIX_TOKENS = 8
# Usual strides, for images that are no multiple of theirs.
_STRIDES = (4, 8, 16, 32)
# How far the two sides of a grid may be from the image's proportions: what a convolution without padding loses.
_TOLERANCE = 0.2


def tensors_in(output: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """List the tensors of a module's output with their keys, joined by dots: "" for the output itself, "0", "out.1"."""
    if isinstance(output, Tensor):
        yield prefix, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_in(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from tensors_in(value, f"{prefix}.{index}" if prefix else str(index))


def as_map(tensor: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    """Return features as a map (N, C, H, W); None for what is none.

    A sequence (N, tokens, C) becomes a map when its tokens, behind up to eight class or register tokens, fill the image
    at some stride. Channels last (N, H, W, C) are told from channels first by those proportions; where both
    would do, channels come first.

    Args:
        tensor: Features in any of the three layouts.
        image_size: Height and width of the images that they belong to.
    """
    if not tensor.is_floating_point():
        return None
    if tensor.ndim == 3:
        return _sequence_as_map(tensor, image_size)
    if tensor.ndim != 4 or 0 in tensor.shape:
        return None
    _, first, second, third = tensor.shape
    if not _proportional(second, third, image_size) and _proportional(first, second, image_size):
        return tensor.permute(0, 3, 1, 2)
    return tensor


def _sequence_as_map(tensor: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    tokens = tensor.shape[1]
    if tokens == 1:  # a class token alone
        return None
    for prefix in range(min(_PREFIX_TOKENS + 1, tokens)):
        grid = _grid(tokens - prefix, image_size)
        if grid is not None:
            return tensor[:, prefix:].reshape(len(tensor), *grid, -1).permute(0, 3, 1, 2)
    return None


def _grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Find the rows and columns that a stride of whole pixels makes of an image, where they are ``tokens`` in all."""
    height, width = image_size
    for stride in (max(1, round((height * width / tokens) ** 0.5)), *_STRIDES):
        for rows, columns in ((height // stride, width // stride), (-(-height // stride), -(-width // stride))):
            if rows * columns == tokens:
                return rows, columns
    return None


def _proportional(rows: int, columns: int, image_size: tuple[int, int]) -> bool:
    """Tell whether a grid has the image's proportions, give or take a row or column."""
    height, width = image_size
    expected = columns * height / width
    return abs(rows - expected) <= max(1.0, _TOLERANCE * expected)
