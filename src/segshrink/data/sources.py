"""A data set that is open: its images found, paired with masks, divided, and their headers read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from segshrink.classes import ClassMap
from segshrink.config import DatasetDescription
from segshrink.data.image_kinds import common_kind, read_options
from segshrink.data.pairing import Found, Pair, find_pairs, find_unlabeled, refuse_unpaired
from segshrink.data.splits import Division, divide, divide_patches
from segshrink.errors import ConfigError, DataError, ModelError
from segshrink.formatting import listed
from segshrink.imagery import MaskOptions, ReadOptions, probe
from segshrink.imagery.bands import same_bands
from segshrink.imagery.label_regions import SUFFIXES, regions_of
from segshrink.imagery.scaling import Scaling
from segshrink.model_description import ModelDescription
from segshrink.tiling import Window
from segshrink.working_size import depends_on_image

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """An image, its mask, and which part of them is meant.

    Attributes:
        name: Unique within a data set and safe as a file name ("Tile_4-image_part_001").
        image: The image file.
        mask: The mask file; None for images without labels.
        window: Part of both in pixels; None is the whole. Only the leaking ``patches`` split gives one.
        mask_options: How the mask is read; None is ``MaskOptions()``.
        options: How the image is read; None is ``ReadOptions()``.
        resize_mask: Whether a mask of other size but the same proportions is brought to the image's.
        regions: Doubted regions of the mask, some of them corrected, as polygons; None where there are none.
    """

    name: str
    image: Path
    mask: Path | None
    window: Window | None = None
    mask_options: MaskOptions | None = None
    options: ReadOptions | None = None
    resize_mask: bool = False
    regions: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set, found and divided; nothing but image headers was read.

    Attributes:
        description: What it was opened from.
        classes: What masks mean.
        bands: Bands of every image.
        train: Samples that train; where no image with a mask does, the unlabeled ones.
        val: Samples that judge during development.
        test: Samples that judge at the end; often empty.
        unlabeled: Images without masks, none of which is in the other parts.
        dtype: Data type of every image.
        band_names: What the bands are called, as a model records it; None where nothing says.
        scaling: Scale and offset tags of the bands; None where there are none.
        resolution: Meters a pixel; None where it isn't known or differs.
        georeferenced: Whether images say where on the ground they lie.
        groups: Names of the samples of each declared piece of ground, by its name.
        overlaps: Names of samples that show some of the same ground, for each declaration.
    """

    description: DatasetDescription
    classes: ClassMap
    bands: int
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    unlabeled: tuple[Sample, ...] = ()
    dtype: str = "uint8"
    band_names: tuple[str, ...] | None = None
    scaling: Scaling | None = None
    resolution: float | None = None
    georeferenced: bool = False
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    overlaps: tuple[frozenset[str], ...] = ()

    @property
    def labeled(self) -> bool:
        """Whether any training image has a mask."""
        return any(sample.mask is not None for sample in self.train)

    @property
    def leaking(self) -> bool:
        """Whether judged pixels lie beside training pixels, so that scores are too good."""
        return self.description.split.leaking


def open_dataset(description: DatasetDescription, *, model: ModelDescription | None = None) -> Dataset:
    """Find, pair and divide the images of a data set, and read their headers.

    Images that no part of the split names are left out, as are unlabeled images that a part names.

    Args:
        description: The data set.
        model: A model that looks at the images: where the description doesn't choose bands, they are read as it takes
            them, by name and with transparency where it has so many bands; their numbers are put on its scale and
            offset.

    Raises:
        FileError: The root folder or a list file is missing; an image header is unreadable.
        ConfigError: ``images`` and ``masks`` can't be paired; the classes contradict each other; ``resize`` depends on
            the image, and images lie on the ground.
        DataError: No image matches; an image of the split has no mask, or a mask no image; a split entry matches
            nothing; an image is in two parts; images differ in bands or data type; ``label_errors`` names no regions of
            these images.
    """
    classes = description.class_map()
    root = description.root
    files = find_pairs(description)
    images = [pair.relative for pair in files.pairs]
    division = divide(description.split, images, root=root)
    if division.problems:
        more = f" (and {len(division.problems) - 1} more problems)" if len(division.problems) > 1 else ""
        raise DataError(f"{description.name}: {division.problems[0]}{more}")
    refuse_unpaired(description, files, division)
    used = {*division.train, *division.val, *division.test}
    pairs = [files.pairs[position] for position in sorted(used)]
    taken = {pair.image for pair in pairs}
    unlabeled = [pair for pair in find_unlabeled(description, files) if pair.image not in taken]
    options = read_options(description, model)
    images_read = {pair.image: probe(pair.image, options) for pair in (*pairs, *unlabeled)}
    kind = common_kind(images_read, description, options)
    for problem in kind.problems:
        if problem.severity == "error":
            raise DataError(f"{description.name}: {problem.message}")
    if depends_on_image(description.resize) and kind.georeferenced:
        raise ConfigError(
            f"{description.name}: the images lie on the ground, where a pixel has one size, and resize: "
            f"{description.resize} would give it another in each image; give a factor, such as resize: 0.5"
        )
    regions, foreign = label_regions(description, files)
    if foreign:
        _LOGGER.warning("%s: %s", description.name, foreign)
    parts = samples_of(description, files, division, kind.options, regions)
    without_masks = tuple(Sample(pair.name, pair.image, None, options=kind.options) for pair in unlabeled)
    if not parts["train"]:
        parts["train"], without_masks = without_masks, ()
    if not parts["train"]:
        raise DataError(
            f"{description.name}: split.train is empty; list folders, wildcards or image stems, or unlabeled images"
        )
    return Dataset(
        description=description,
        classes=classes,
        bands=kind.bands,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        unlabeled=without_masks,
        dtype=kind.dtype,
        band_names=kind.band_names,
        scaling=kind.scaling,
        resolution=description.resolution or kind.resolution,
        georeferenced=kind.georeferenced,
        groups={name: _names(files, positions) for name, positions in division.groups},
        overlaps=tuple(_names(files, positions) for positions in division.overlaps),
    )


def _names(files: Found, positions: Iterable[int]) -> frozenset[str]:
    return frozenset(files.pairs[position].name for position in positions)


def refuse_other_classes(model: ModelDescription, dataset: Dataset) -> None:
    """Raise ModelError unless a data set's classes are those that a model predicts, in name and order."""
    if model.classes.names != dataset.classes.names:
        raise ModelError(
            f"the model's classes ({', '.join(model.classes.names)}) are not those of data set "
            f"'{dataset.description.name}' ({', '.join(dataset.classes.names)}); name them alike and in the same order"
        )


def refuse_other_bands(model: ModelDescription, dataset: Dataset) -> None:
    """Raise ModelError unless a data set's bands are those that a model takes, in number and, where known, by name."""
    name = dataset.description.name
    if model.bands != dataset.bands:
        raise ModelError(
            f"the model takes {model.bands} bands but the images of '{name}' have {dataset.bands}; give images like "
            "those that it was trained on, or choose with 'bands'"
        )
    if not same_bands(dataset.band_names, model.band_names):
        raise ModelError(
            f"the model takes the bands {', '.join(model.band_names or ())} but those of '{name}' are "
            f"{', '.join(dataset.band_names or ())}; choose them with 'bands' in its order"
        )


def label_regions(description: DatasetDescription, files: Found) -> tuple[dict[str, Path], str]:
    """Return the files of ``label_errors`` by the name of their image, and a sentence about those of no image, if any.

    Raises:
        DataError: The folder is missing, or has no file of any image.
    """
    if description.label_errors is None:
        return {}, ""
    folder = description.root / description.label_errors.regions
    held = {path.name for path in folder.iterdir() if path.suffix in SUFFIXES} if folder.is_dir() else set()
    found = {pair.name: path for pair in files.pairs if (path := regions_of(folder, pair.name)) is not None}
    if not found:
        lack = f"has no {' or '.join(SUFFIXES)} file of an image" if folder.is_dir() else "is no folder"
        raise DataError(
            f"{description.name}: label_errors.regions: {folder} {lack}; name the folder that segshrink labels wrote "
            "(relative to 'root'), and leave 'label_errors' out until it has"
        )
    foreign = sorted(name for name in held if Path(name).stem not in found)
    if not foreign:
        return found, ""
    return found, f"regions of no image lie in {folder}: {listed(foreign)}; name them after their images"


def samples_of(
    description: DatasetDescription,
    files: Found,
    division: Division,
    options: ReadOptions,
    regions: Mapping[str, Path],
) -> dict[str, tuple[Sample, ...]]:
    """Return the samples of "train", "val" and "test"; for the ``patches`` split the images' headers are read."""
    pairs = files.pairs
    made = partial(
        _sample,
        mask_options=mask_options(description),
        options=options,
        resize_mask=description.mask_resize is not None,
        regions=regions,
    )
    if description.split.patches is not None:
        cut = {position: probe(pairs[position].image) for position in division.train}
        sizes = [(cut[place].height, cut[place].width) if place in cut else (0, 0) for place in range(len(pairs))]
        squares = divide_patches(sizes, description.split)
        return {
            "train": tuple(made(pairs[position], window=window) for position, window in squares.train),
            "val": tuple(made(pairs[position], window=window) for position, window in squares.val),
            "test": tuple(made(pairs[position]) for position in division.test),
        }
    return {
        part: tuple(made(pairs[index]) for index in positions)
        for part, positions in (("train", division.train), ("val", division.val), ("test", division.test))
    }


def mask_options(description: DatasetDescription) -> MaskOptions:
    """Return how masks are read."""
    return MaskOptions(
        field=description.mask_field,
        background=description.mask_background,
        labels=tuple((label, entry.name) for entry in description.classes for label in entry.labels),
        ignored_labels=tuple(description.ignore_labels),
        instances=description.mask_instances,
    )


def _sample(
    pair: Pair,
    *,
    mask_options: MaskOptions,
    options: ReadOptions,
    resize_mask: bool,
    regions: Mapping[str, Path],
    window: Window | None = None,
) -> Sample:
    name = pair.name if window is None else f"{pair.name}-r{window.row:05d}-c{window.col:05d}"
    return Sample(name, pair.image, pair.mask, window, mask_options, options, resize_mask, regions.get(pair.name))
