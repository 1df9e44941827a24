"""Square training crops: a plan (pure data) says what to take, ``cut`` takes it from any array.

The same plan cuts image, mask and anything else that lies over the same pixels, such as a teacher's cached answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

_FAST_CHANNELS = 4


@dataclass(frozen=True)
class CropPlan:
    """Which pixels a crop shows, and how.

    The source window is cut from the scene, resized to a square, mirrored, then turned. All numbers are whole, so a
    plan can be stored, compared and sent anywhere.

    Attributes:
        sample: Index of the scene.
        row: First row of the source window in scene pixels; negative when the window reaches outside.
        col: First column of the source window.
        height: Rows of the source window, at least 1.
        width: Columns of the source window, at least 1.
        size: Side of the crop in pixels.
        mirror_rows: Whether the crop is turned upside down.
        mirror_cols: Whether left and right are exchanged.
        turns: Quarter turns anticlockwise, 0 to 3, after mirroring.
    """

    sample: int
    row: int
    col: int
    height: int
    width: int
    size: int
    mirror_rows: bool = False
    mirror_cols: bool = False
    turns: int = 0


def plan_crop(
    rng: np.random.Generator,
    sample: int,
    *,
    shape: tuple[int, int],
    size: int,
    scale: tuple[float, float] = (1.0, 1.0),
    flips: bool | Literal["left-right"] = False,
    quarter_turns: bool = False,
    center: tuple[int, int] | None = None,
) -> CropPlan:
    """Draw a crop of one scene.

    The window has ``size / zoom`` pixels a side. It lies inside the scene wherever the scene is large enough; where it
    isn't, the scene lies inside the window, at a random place.

    Args:
        rng: Where all random numbers come from; as many are drawn whatever the settings are.
        sample: Index of the scene, copied into the plan.
        shape: (height, width) of the scene in pixels.
        size: Side of the crop in pixels.
        scale: Range of the zoom factor, drawn log-uniformly; below 1 shows more ground at a lower resolution.
        flips: Mirror rows and columns, each with chance 1/2; "left-right" mirrors columns only.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees with equal chance.
        center: (row, col) of the pixel to put in the middle, as far as the scene's border allows; None is anywhere.
    """
    zoom_draw, row_draw, col_draw, rows_draw, cols_draw, turn_draw = rng.random(6).tolist()
    low, high = math.log(scale[0]), math.log(scale[1])
    side = max(1, round(size / math.exp(low + zoom_draw * (high - low))))
    return CropPlan(
        sample=sample,
        row=_start(shape[0], side, row_draw, None if center is None else center[0]),
        col=_start(shape[1], side, col_draw, None if center is None else center[1]),
        height=side,
        width=side,
        size=size,
        mirror_rows=flips is True and rows_draw < 0.5,
        mirror_cols=bool(flips) and cols_draw < 0.5,
        turns=int(turn_draw * 4) if quarter_turns else 0,
    )


def cut(
    array: NDArray[Any],
    plan: CropPlan,
    *,
    fill: ArrayLike | Literal["edge"] = "edge",
    order: Literal["nearest", "linear"] = "linear",
) -> NDArray[Any]:
    """Take a planned crop from an array; only the window is read.

    Args:
        array: (H, W) or (H, W, channels), any integer or floating type, of the scene's size.
        plan: What to take.
        fill: Value outside the scene, one number or one a channel; "edge" repeats the nearest pixel.
        order: "linear" interpolates when enlarging and averages over the covered area when shrinking (no aliasing);
            "nearest" takes the pixel under the middle of each crop pixel, for class indices.

    Returns:
        (size, size) or (size, size, channels), contiguous, of the array's type. It never shares memory with ``array``.

    Raises:
        ValueError: The window lies wholly outside the array.
    """
    window = _window(array, plan, fill)
    if (plan.height, plan.width) != (plan.size, plan.size):
        if order == "nearest":
            rows = _nearest(plan.height, plan.size)
            window = window[rows].take(_nearest(plan.width, plan.size), axis=1)
        else:
            window = _resized(window, plan.size)
    return _own(_oriented(window, plan), array)


def inside(plan: CropPlan, shape: tuple[int, int], valid: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return (size, size) bools: False where the crop reaches outside a scene, or this has no value.

    Args:
        plan: Where the crop lies.
        shape: (height, width) of the scene.
        valid: (H, W) which of its pixels have a value; None: all have.
    """
    if valid is not None:
        return cut(valid, plan, fill=False, order="nearest")
    rows = plan.row + _nearest(plan.height, plan.size)
    cols = plan.col + _nearest(plan.width, plan.size)
    valid_rows = (rows >= 0) & (rows < shape[0])
    valid_cols = (cols >= 0) & (cols < shape[1])
    if valid_rows.all() and valid_cols.all():
        return np.ones((plan.size, plan.size), dtype=np.bool_)
    return np.ascontiguousarray(_oriented(np.logical_and.outer(valid_rows, valid_cols), plan))


def _start(extent: int, side: int, draw: float, center: int | None) -> int:
    """Return the first pixel of a window of ``side`` pixels along an axis of ``extent`` pixels."""
    low, high = min(0, extent - side), max(0, extent - side)
    if center is None or extent < side:
        return low + int(draw * (high - low + 1))
    return min(max(center - side // 2, low), high)


def _nearest(extent: int, size: int) -> NDArray[np.intp]:
    """Return, for each of ``size`` pixels, the index of the one of ``extent`` pixels under its middle."""
    return (2 * np.arange(size, dtype=np.intp) + 1) * extent // (2 * size)


def _window(array: NDArray[Any], plan: CropPlan, fill: ArrayLike | Literal["edge"]) -> NDArray[Any]:
    """Return the source window: a view if it lies inside the array, else a filled copy."""
    bottom, right = plan.row + plan.height, plan.col + plan.width
    top_in, left_in = max(plan.row, 0), max(plan.col, 0)
    bottom_in, right_in = min(bottom, array.shape[0]), min(right, array.shape[1])
    if top_in >= bottom_in or left_in >= right_in:
        raise ValueError(f"the window of {plan} lies outside the array of {array.shape[0]} × {array.shape[1]} pixels")
    view = array[top_in:bottom_in, left_in:right_in]
    if view.shape[:2] == (plan.height, plan.width):
        return view
    window = np.empty((plan.height, plan.width, *array.shape[2:]), dtype=array.dtype)
    rows = slice(top_in - plan.row, bottom_in - plan.row)
    cols = slice(left_in - plan.col, right_in - plan.col)
    if isinstance(fill, str):
        window[rows, cols] = view
        window[rows, : cols.start] = view[:, :1]
        window[rows, cols.stop :] = view[:, -1:]
        window[: rows.start] = window[rows.start]
        window[rows.stop :] = window[rows.stop - 1]
    else:
        window[...] = fill
        window[rows, cols] = view
    return window


def _resized(window: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize (h, w[, channels]) to ``size`` pixels a side with an antialiased linear filter."""
    if window.ndim == 2:
        return _resized(window[..., None], size)[..., 0]
    if window.dtype != np.uint8:
        return _resized_floating(window, size)
    channels = window.shape[2]
    if channels <= _FAST_CHANNELS:
        return _interpolated(torch.from_numpy(np.array(window, order="C")), size, antialias=True).numpy()
    # torch's fast path for bytes takes at most 4 channels; the last group overlaps the one before.
    result = np.empty((size, size, channels), dtype=np.uint8)
    for start in range(0, channels, _FAST_CHANNELS):
        first = min(start, channels - _FAST_CHANNELS)
        group = slice(first, first + _FAST_CHANNELS)
        _pixels(result[..., group])[...] = _pixels(_resized(_copied(window[..., group]), size))
    return result


def _resized_floating(window: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize (h, w, channels) of any type but bytes; float32 holds 16-bit numbers exactly."""
    window_tensor = torch.from_numpy(np.array(window, order="C"))
    precise = torch.float64 if window.dtype.itemsize > 4 else torch.float32
    shrinks = max(window.shape[:2]) > size
    if shrinks:
        # torch averages planes up to twice as fast as pixels. Without shrinking there is nothing to average.
        planes = window_tensor.permute(2, 0, 1).to(precise, memory_format=torch.contiguous_format)
        values = _interpolated(planes.permute(1, 2, 0), size, antialias=True)
    else:
        values = _interpolated(window_tensor.to(precise), size, antialias=False)
    if not window_tensor.is_floating_point():
        limits = torch.iinfo(window_tensor.dtype)
        values = values.round_().clamp_(limits.min, limits.max)
    result: NDArray[Any] = values.to(window_tensor.dtype, memory_format=torch.contiguous_format).numpy()
    return result


def _interpolated(window: torch.Tensor, size: int, *, antialias: bool) -> torch.Tensor:
    """Interpolate (h, w, channels) to (size, size, channels)."""
    images = window[None].permute(0, 3, 1, 2)
    resized = F.interpolate(images, size=(size, size), mode="bilinear", antialias=antialias)
    return resized[0].permute(1, 2, 0)


def _oriented(crop: NDArray[Any], plan: CropPlan) -> NDArray[Any]:
    """Mirror and turn without copying."""
    if plan.mirror_rows:
        crop = crop[::-1]
    if plan.mirror_cols:
        crop = crop[:, ::-1]
    return np.rot90(crop, plan.turns)


def _own(crop: NDArray[Any], source: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous array that shares no memory with ``source``."""
    return crop if crop.flags.c_contiguous and not np.may_share_memory(crop, source) else _copied(crop)


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous copy; whole pixels are copied more than twice as fast as single channels."""
    if array.ndim < 3 or array.strides[2] != array.itemsize:
        return np.array(array, order="C")
    return np.array(_pixels(array), order="C").view(array.dtype).reshape(array.shape)


def _pixels(array: NDArray[Any]) -> NDArray[Any]:
    """View (h, w, channels) as (h, w) whole pixels; channels must lie side by side."""
    return array.view(np.dtype((np.void, array.shape[2] * array.itemsize)))[..., 0]
