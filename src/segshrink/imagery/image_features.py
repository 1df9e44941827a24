"""Features of an image that tell how it was taken and treated: tones, colors, sharpness by octave, traces in its bytes.

They are taken from a sample of its pixels, which is the same however the image is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segshrink.image_distribution import ImageDistribution
from segshrink.tiling import Window

# Windows an axis, and their side in pixels: multiples of 32, so that they can be halved for each octave and still have
# three pixels. They start at multiples of JPEG's blocks.
_WINDOWS, _SIDES, _BLOCK = 3, (128, 96), 8
# Windows with more pixels without a value than this share tell nothing.
_MOST_INVALID = 0.1
# Rows and columns of the lattice of pixels that tell levels and colors.
_LATTICE = 64
# Octaves of detail: an image of a quarter of the resolution has the same ones, two places further on.
OCTAVES = 6
PER_OCTAVE = ("bumps", "energy", "peaks")
# What counts as no spread, no step between neighbors, and full correlation.
_LEAST_SPREAD, _LEAST_STEP, _ONE = 1e-3, 1e-4, 0.9999
TRACES = ("lowest", "highest", "gaps", "blocks", "constant", "vividness")
# Octaves whose details may be stronger in bright places.
_LIT_OCTAVES = (1, 3)
_TONES = ("mean", "spread", "skew", "dark", "middle", "bright", *(f"lit_{octave}" for octave in _LIT_OCTAVES))
# Of the first three bands: what is "warm" says how red leads blue, what is "blue" how blue leads green.
_OF_COLORS = ("level", "spread", "correlation", "detail", "detail_correlation")
_COLORS = (
    *(f"{lead}_{name}" for lead in ("warm", "blue") for name in _OF_COLORS),
    *("warm_light", "warm_green", "warm_vivid", "warm_skew", "warm_dark", "opposite_correlation"),
    *("opposite_detail_correlation", "vivid_light"),
)


def sample_windows(height: int, width: int) -> list[Window]:
    """Spread at most nine square windows of 128 or 96 pixels over an image; none where it is smaller."""
    side = next((side for side in _SIDES if side <= min(height, width)), None)
    if side is None:
        return []
    return [Window(row, col, side, side) for row, col in product(_starts(height, side), _starts(width, side))]


def _lattice(length: int) -> NDArray[np.int64]:
    count = min(_LATTICE, length)
    return (2 * np.arange(count) + 1) * length // (2 * count)


def _starts(length: int, side: int) -> list[int]:
    count = min(_WINDOWS, length // side)
    return [int(length * (2 * place + 1) / (2 * count) - side / 2) // _BLOCK * _BLOCK for place in range(count)]


class ImageSample:
    """Pixels of an image that tell what it is like, gathered from its parts in any order.

    Args:
        height: Rows of the image.
        width: Columns of the image.
    """

    def __init__(self, height: int, width: int) -> None:
        self._rows, self._cols = _lattice(height), _lattice(width)
        self._places = sample_windows(height, width)
        self._points: list[NDArray[Any]] = []
        self._windows: dict[Window, NDArray[Any]] = {}
        self._invalid = dict.fromkeys(self._places, 0)

    @classmethod
    def of(cls, image: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Self:
        """Sample a whole image (h, w, bands)."""
        sample = cls(*image.shape[:2])
        sample.add(Window(0, 0, *image.shape[:2]), image, valid)
        return sample

    def add(self, part: Window, pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> None:
        """Take what belongs to the sample from a part (h, w, bands); ``valid`` says which pixels have a value."""
        rows = self._rows[(self._rows >= part.row) & (self._rows < part.row + part.height)] - part.row
        cols = self._cols[(self._cols >= part.col) & (self._cols < part.col + part.width)] - part.col
        points = pixels[np.ix_(rows, cols)].reshape(-1, pixels.shape[2])
        self._points.append(points if valid is None else points[valid[np.ix_(rows, cols)].ravel()])
        for place in self._places:
            top, left = max(part.row, place.row), max(part.col, place.col)
            height = min(part.row + part.height, place.row + place.height) - top
            width = min(part.col + part.width, place.col + place.width) - left
            if min(height, width) < 1:
                continue
            shared = Window(top, left, height, width)
            shape = (place.height, place.width, pixels.shape[2])
            whole = self._windows.setdefault(place, np.zeros(shape, pixels.dtype))
            whole[shared.slices_in(place)] = pixels[shared.slices_in(part)]
            if valid is not None:
                self._invalid[place] += int(np.count_nonzero(~valid[shared.slices_in(part)]))

    @property
    def points(self) -> NDArray[Any]:
        """(n, bands) valid pixels of a lattice over the whole image."""
        return np.concatenate(self._points)

    @property
    def windows(self) -> NDArray[Any]:
        """(n, side, side, bands) pixels of windows that lie spread over it and are valid but for a tenth."""
        enough = [self._invalid[place] <= _MOST_INVALID * place.height * place.width for place in self._windows]
        return np.stack([pixels for pixels, kept in zip(self._windows.values(), enough, strict=True) if kept])

    @property
    def usable(self) -> bool:
        """Whether enough of the image was gathered to say anything."""
        pixels = ((place.height * place.width, self._invalid[place]) for place in self._windows)
        return any(invalid <= _MOST_INVALID * count for count, invalid in pixels)

    @property
    def large(self) -> bool:
        """Whether all nine windows fit: it has 384 pixels a side at least."""
        return len(self._places) == _WINDOWS**2


def feature_groups(bands: int) -> tuple[tuple[str, ...], ...]:
    """Name the features of images of so many bands, in order: traces of files, tones, colors (or none), details."""
    bumps, energy, peaks = (tuple(f"{name}_{octave}" for octave in range(OCTAVES)) for name in PER_OCTAVE)
    return TRACES, (*_TONES, *bumps), _COLORS if bands >= 3 else (), (*energy, *peaks)


def image_distribution(samples: Sequence[ImageSample], *, low: float, high: float) -> ImageDistribution:
    """Take the statistics of the features of some images, which are all usable; ``low``, ``high`` as below."""
    groups = tuple(map(len, feature_groups(samples[0].points.shape[1])))
    return ImageDistribution.of(
        np.stack([image_features(each, low, high) for each in samples]), groups, low=low, high=high
    )


def image_features(sample: ImageSample, low: float, high: float) -> NDArray[np.float64]:
    """Measure an image.

    Args:
        sample: Pixels of it.
        low: The value that counts as 0.
        high: The value that counts as 1.

    Returns:
        A number for each of ``feature_groups``, in order.
    """
    colored = sample.points.shape[-1] >= 3
    planes, points = (
        (np.moveaxis(pixels[..., : 3 if colored else 1], -1, 0).astype(np.float32) - low) / (high - low)
        for pixels in (sample.windows, sample.points)
    )
    light, levels = planes.mean(axis=0), points.mean(axis=0)
    spread = levels.std() + _LEAST_SPREAD
    tones = [levels.mean(), np.log(spread), _skew(levels), *np.quantile(levels, (0.05, 0.5, 0.95))]
    details, bumps, brighter = _octaves(light, spread)
    colors = _colors(points, levels, _quartered(planes)) if colored else []
    whole = _constant(points), float(np.ptp(points, axis=0).mean())
    traces = *_traces(planes, light), *whole
    return np.array([*traces, *tones, *brighter, *bumps, *colors, *details], np.float64)


def _traces(planes: NDArray[np.float32], light: NDArray[np.float32]) -> list[float]:
    """Return the shares of pixels at the lowest and the highest byte, and what gaps and blocks there are.

    The gaps are the share of bytes that no pixel has, between those that 2 and 98 % of them stay below; the blocks, how
    much more neighbors differ across one in eight rows and columns (of JPEG's blocks) than across any other, as a
    logarithm.
    """
    lowest, highest, gaps = [], [], []
    for plane in planes:
        counts = np.bincount(np.clip(plane.ravel() * 255 + 0.5, 0, 255).astype(np.uint8), minlength=256)
        first, last = np.searchsorted(counts.cumsum(), (0.02 * plane.size, 0.98 * plane.size))
        lowest.append(counts[0] / plane.size)
        highest.append(counts[-1] / plane.size)
        gaps.append((counts[first : last + 1] == 0).mean())
    blocks = 0.0
    for steps in (np.abs(np.diff(light, axis=axis)).mean(axis=(0, 3 - axis)) for axis in (1, 2)):
        *_, other, largest = sorted(steps[phase::_BLOCK].mean() + _LEAST_STEP for phase in range(_BLOCK))
        blocks += float(np.log(largest / other))
    return [min(lowest), min(highest), float(np.mean(gaps)), blocks]


def _constant(points: NDArray[np.float32]) -> float:
    """Return the share of the most frequent of some pixels (bands, n)."""
    _, counts = np.unique(np.arange(1, len(points) + 1) ** 0.5 @ points, return_counts=True)
    return float(counts.max() / points.shape[1])


def _colors(points: NDArray[np.float32], levels: NDArray[np.float32], details: NDArray[np.float32]) -> list[float]:
    """Return features of the colors of some pixels (3, n), their levels (n), and the details of windows (3, m)."""
    red, green, blue = points
    warm, vivid = red - blue, np.ptp(points, axis=0)
    of_bands = []
    for bands in (points, details):
        sizes = np.log(bands.std(axis=1) + _LEAST_STEP)
        pairs = [_correlation(bands[first], bands[second]) for first, second in ((0, 1), (1, 2), (0, 2))]
        of_bands.append((sizes, pairs))
    (sizes, pairs), (detail_sizes, detail_pairs) = of_bands
    leads = np.array(
        [points.mean(axis=1), sizes, (pairs[0], 0, pairs[1]), detail_sizes, (detail_pairs[0], 0, detail_pairs[1])]
    )
    return [
        *(leads[:, 0] - leads[:, 2]),
        *(leads[:, 2] - leads[:, 1]),
        *(_correlation(warm, other) for other in (levels, 2 * green - red - blue, vivid)),
        _skew(warm),
        warm[levels <= np.quantile(levels, 0.2)].mean(),
        pairs[2],
        detail_pairs[2],
        _correlation(vivid, levels),
    ]


def _quartered(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return differences of neighbors (3, m) in windows of a quarter of the size."""
    quarters = _halved(_halved(planes))
    return np.diff(quarters, axis=-1).reshape(3, -1)


def _octaves(light: NDArray[np.float32], spread: float) -> tuple[list[float], list[float], list[float]]:
    """Return features of the octaves of detail: differences of neighbors, in images of half the size each time.

    Returns:
        How much stronger details are than in the next octave, and how much rarer strong ones, as logarithms (of the
        last octave they themselves); whether single ones are bright rather than dark; whether there is more detail
        where it is brighter.
    """
    energies, peaks, bumps, brighter = [], [], [], []
    for octave in range(OCTAVES):
        light = _halved(light) if octave else light
        squares = [np.diff(light, axis=axis) ** 2 for axis in (1, 2)]
        both = np.concatenate([part.ravel() for part in squares])
        energy = float(both.mean()) + _LEAST_STEP**2
        energies.append(np.log(energy) / 2 - np.log(spread))
        peaks.append(np.log(float(both @ both) / both.size / energy**2 + _LEAST_SPREAD))
        bumps.append(-_skew(np.diff(light, n=2, axis=2).ravel()))
        if octave in _LIT_OCTAVES:
            brighter.append(_correlation(np.sqrt(squares[1]).ravel(), light[:, :, 1:].ravel()))
    differences = [*-np.diff(energies), energies[-1], *-np.diff(peaks), peaks[-1]]
    return differences, bumps, brighter


def _halved(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = planes[..., ::2, :] + planes[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) / 4, np.float32)


def _skew(values: NDArray[Any]) -> float:
    shifted = values - values.mean()
    squares = shifted * shifted
    return float((squares @ shifted) / values.size / ((float(squares.mean()) + _LEAST_STEP**2) ** 1.5))


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return Fisher's transform of a correlation, with which its errors are as large everywhere."""
    first, second = one - one.mean(), other - other.mean()
    size = np.sqrt(float(first @ first) * float(second @ second)) + _LEAST_STEP**2 * one.size
    return float(np.arctanh(np.clip(float(first @ second) / size, -_ONE, _ONE)))
