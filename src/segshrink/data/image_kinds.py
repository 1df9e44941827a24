"""What the images of a data set have in common, and where they differ; found from their headers."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from segshrink.config import DatasetDescription
from segshrink.data.findings import Problem
from segshrink.errors import DataError
from segshrink.formatting import listed
from segshrink.imagery import ImageInfo, ReadOptions, probe
from segshrink.imagery.bands import plain_name
from segshrink.imagery.scaling import Scaling, ScalingChange, describe_scaling
from segshrink.model_description import ModelDescription

Key = TypeVar("Key", bound=Hashable)

# Pixels whose sizes on the ground differ by no more than this part have one resolution.
_SAME_RESOLUTION = 0.05


@dataclass(frozen=True)
class ImageKind:
    """What the images of a data set are.

    Attributes:
        bands: Bands of every image.
        dtype: Data type of every image.
        options: How they are read: as the description says, and with what differs between them put right.
        band_names: What the bands are called, as a model records it; None where nothing says.
        scaling: Their scale and offset tags; None where there are none.
        resolution: Meters a pixel; None where it isn't known or differs.
        georeferenced: Whether most images say where on the ground they lie.
        problems: Where images differ: errors for what can't be put right.
    """

    bands: int
    dtype: str
    options: ReadOptions
    band_names: tuple[str, ...] | None = None
    scaling: Scaling | None = None
    resolution: float | None = None
    georeferenced: bool = False
    problems: tuple[Problem, ...] = ()


def read_options(description: DatasetDescription, model: ModelDescription | None = None) -> ReadOptions:
    """Return how the images of a data set are read, where a model looks at them as it takes them."""
    chosen = description.bands
    bands = tuple(chosen) if isinstance(chosen, list) else chosen
    options = ReadOptions(bands=bands, nodata=description.nodata)
    if model is None:
        return options
    options = replace(options, scaling=model.scaling)
    return options if bands is not None else replace(options, bands=model.bands, names=model.band_names)


def common_kind(images: Mapping[Path, ImageInfo], description: DatasetDescription, options: ReadOptions) -> ImageKind:
    """Find what images have in common.

    Args:
        images: What the headers say, by file; at least one.
        description: The data set.
        options: How the headers were read.
    """
    (bands, dtype), _ = _groups({path: (info.bands, info.dtype) for path, info in images.items()})[0]
    if isinstance(description.bands, int):
        bands = description.bands
    differing = _other_kinds(images, bands, dtype, description)
    fitting = {path: info for path, info in images.items() if (info.bands, info.dtype) == (bands, dtype)}
    names, reordered, misnamed = _common_names(fitting, options, description)
    scaling, rescaled, unscaled = _common_scaling(fitting, dtype, options, description)
    resolution, unequal = _common_resolution(images, description)
    located = sum(info.place.crs is not None and info.place.transform is not None for info in images.values())
    return ImageKind(
        bands=bands,
        dtype=dtype,
        options=replace(
            options,
            names=names if reordered else options.names,
            scaling=scaling if rescaled else options.scaling,
        ),
        band_names=names,
        scaling=scaling,
        resolution=resolution,
        georeferenced=2 * located > len(images),
        problems=(*differing, *misnamed, *unscaled, *unequal),
    )


def _other_kinds(
    images: Mapping[Path, ImageInfo], bands: int, dtype: str, description: DatasetDescription
) -> tuple[Problem, ...]:
    """Tell which images have other bands or another data type than most."""
    others = [path for path, info in images.items() if (info.bands, info.dtype) != (bands, dtype)]
    if not others:
        return ()
    names = _relative(others, description)
    described = [
        f"{name} ({images[path].bands} bands of {images[path].dtype})" for name, path in zip(names, others, strict=True)
    ]
    message = (
        f"{len(others)} of {len(images)} images are not {bands} bands of {dtype}: {listed(described)}; convert them, "
        "leave them out or correct 'bands'"
    )
    return (Problem("mismatched", "error", message, names),)


def _common_names(
    images: Mapping[Path, ImageInfo], options: ReadOptions, description: DatasetDescription
) -> tuple[tuple[str, ...] | None, bool, tuple[Problem, ...]]:
    """Return the bands' names, whether some images are reordered to have them, and what is wrong with the others'."""
    groups = _groups({path: info.band_names for path, info in images.items() if info.band_names is not None})
    if not groups:
        return None, False, ()
    (names, _), *others = groups
    reordered, problems = False, []
    for band_names, paths in others:
        if [plain_name(name) for name in band_names] == [plain_name(name) for name in names]:
            continue
        count_text = (
            f"{len(paths)} of {len(images)} images have the bands {', '.join(band_names)}, others {', '.join(names)}"
        )
        shown = f" ({listed(_relative(paths, description))})"
        if isinstance(options.bands, tuple):
            message = f"{count_text}{shown}; 'bands' takes their numbers as they are, name the bands if they differ"
            problems.append(Problem("bands", "warning", message, _relative(paths, description)))
            continue
        try:
            if probe(paths[0], replace(options, names=names)).band_names == band_names:
                continue  # nothing that is said contradicts
        except DataError as error:
            problems.append(Problem("bands", "error", f"{count_text}{shown}: {error}", _relative(paths, description)))
            continue
        reordered = True
        message = f"{count_text}{shown}; each file's bands are read by name, in the order {', '.join(names)}"
        problems.append(Problem("bands", "warning", message, _relative(paths, description)))
    return names, reordered, tuple(problems)


def _common_scaling(
    images: Mapping[Path, ImageInfo], dtype: str, options: ReadOptions, description: DatasetDescription
) -> tuple[Scaling | None, bool, tuple[Problem, ...]]:
    """Return scale and offset tags, whether some images are changed to have them, and what is wrong with the others."""
    groups = _groups({path: info.scaling for path, info in images.items()})
    common = options.scaling or next((scaling for scaling, _ in groups if scaling is not None), None)
    changed, problems = False, []
    for scaling, paths in groups:
        count_text = f"{len(paths)} of {len(images)} images ({listed(_relative(paths, description))})"
        try:
            if not ScalingChange(scaling, common, dtype=dtype, name=count_text):
                continue
        except DataError as error:
            problems.append(Problem("bands", "error", str(error), _relative(paths, description)))
            continue
        changed = True
        message = (
            f"{count_text} have the scale and offset tags {describe_scaling(scaling)}, others "
            f"{describe_scaling(common)}; their numbers are turned into those of the others"
        )
        problems.append(Problem("bands", "warning", message, _relative(paths, description)))
    return common, changed, tuple(problems)


def _common_resolution(
    images: Mapping[Path, ImageInfo], description: DatasetDescription
) -> tuple[float | None, tuple[Problem, ...]]:
    """Return meters a pixel, None where it isn't known or differs, and say where it differs."""
    sizes = {path: size for path, info in images.items() if (size := info.place.pixel_size) is not None}
    if not sizes:
        return None, ()
    middle = statistics.median(side for size in sizes.values() for side in size)
    expected = description.resolution or middle
    others = [path for path, size in sizes.items() if any(abs(side / expected - 1) > _SAME_RESOLUTION for side in size)]
    if not others:
        return float(f"{middle:.6g}"), ()
    oblong = [path for path in others if max(sizes[path]) / min(sizes[path]) > 1 + _SAME_RESOLUTION]
    if len(oblong) == len(sizes) and description.resolution is None:
        height, width = sizes[oblong[0]]
        message = (
            f"pixels aren't square ({width:.4g} × {height:.4g} m, of {_relative(oblong, description)[0]}), "
            "so models are told no resolution; warp the images, or say one with 'resolution'"
        )
        return None, (Problem("mismatched", "warning", message, _relative(oblong, description)),)
    low, high = (chosen(side for path in others for side in sizes[path]) for chosen in (min, max))
    message = (
        f"{len(others)} of {len(images)} images have pixels of {low:.4g} to {high:.4g} m on the ground where "
        f"{'resolution' if description.resolution else 'most'} says {expected:.4g} m"
        f" ({listed(_relative(others, description))}); bring them to one, or say with 'resolution' what models are told"
    )
    return None, (Problem("mismatched", "warning", message, _relative(others, description)),)


def _groups(values: Mapping[Path, Key]) -> list[tuple[Key, list[Path]]]:
    """Return the different values, the most frequent first, each with the files that have it."""
    groups: dict[Key, list[Path]] = {}
    for path, value in values.items():
        groups.setdefault(value, []).append(path)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _relative(paths: Sequence[Path], description: DatasetDescription) -> tuple[str, ...]:
    return tuple(
        path.relative_to(description.root).as_posix() if path.is_relative_to(description.root) else str(path)
        for path in paths
    )
