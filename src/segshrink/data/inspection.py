"""Looking through a data set for everything that is wrong with it, without stopping at the first problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap, UndeclaredError
from segshrink.colors import format_color, parse_color
from segshrink.config import DatasetDescription
from segshrink.data.duplicates import Picture, duplicate_problems, find_duplicates
from segshrink.data.file_keys import pixel_files
from segshrink.data.findings import (
    DuplicateFinding,
    ImageFinding,
    Inspection,
    PartFinding,
    Problem,
    ProblemKind,
)
from segshrink.data.fingerprints import fingerprint
from segshrink.data.image_kinds import ImageKind, common_kind, read_options
from segshrink.data.label_checks import compare_classes, propose_values, undeclared_findings, undeclared_problem
from segshrink.data.pairing import Found, Pair, find_pairs, find_unlabeled, meant_orphans, needs_mask
from segshrink.data.sources import label_regions, mask_options
from segshrink.data.spatial_leakage import independent_training_groups, spatial_leakage
from segshrink.data.splits import PARTS, Division, divide, divide_patches
from segshrink.data.store import Progress
from segshrink.errors import DataError, SegshrinkError
from segshrink.files import content_key
from segshrink.formatting import listed
from segshrink.imagery import ImageInfo, probe, read_mask, read_valid_image
from segshrink.imagery.label_regions import read_label_regions
from segshrink.imagery.masks import drawn_from, resized_mask
from segshrink.imagery.reading import transparency_shares
from segshrink.imagery.vector_masks import is_vector, misplaced
from segshrink.tiling import Window
from segshrink.working_size import in_words

# A transparency band with more than this share of values between clear and opaque looks like a measured one.
_MEASURED = 0.1

# Parts of the split that an image is in; a window where only a square of it is meant.
_Regions = list[tuple[str, Window | None]]


def inspect_dataset(description: DatasetDescription, *, progress: Progress | None = None) -> Inspection:
    """Read every image and mask of a data set's split and its unlabeled images, and tell what is wrong.

    Args:
        description: The data set.
        progress: Called with (images done, all images) after each image.

    Returns:
        What was found. Problems of the data never raise, they stand in ``problems``; ``sound`` says whether training
        can start.
    """
    survey = _Survey(description)
    try:
        classes = description.class_map()
        files = find_pairs(description)
    except SegshrinkError as error:
        survey.tell("setup", str(error))
        return survey.result()
    survey.classes = classes
    survey.excluded = files.excluded
    division = divide(description.split, [pair.relative for pair in files.pairs], root=description.root)
    for message in division.problems:
        survey.tell("split", f"{description.name}: {message}")
    work = _regions_of(files, division, survey)
    _tell_unpaired(files, division, survey)
    _find_label_regions(files, survey)
    survey.unused = len(files.pairs) - len(work)
    survey.ground = independent_training_groups(files, division)
    labeled = {pair.image for pair, _ in work}
    unlabeled = _unlabeled(files, survey)
    if not (division.train or division.problems or unlabeled):
        survey.tell("split", f"{description.name}: split.train is empty; list folders, wildcards or image stems")
    work += [(pair, [("unlabeled", None)]) for pair in unlabeled if pair.image not in labeled]
    for number, (pair, regions) in enumerate(work):
        survey.look(pair, regions)
        if progress is not None:
            progress(number + 1, len(work))
    _compare_kinds(survey)
    if not description.split.leaking:
        survey.duplicates = find_duplicates(survey.pictures)
        survey.problems += duplicate_problems(survey.duplicates)
        parts = {pair.relative: held[0][0] for pair, held in work}
        places = {pair.relative: survey.infos[pair.image].place for pair, _ in work if pair.image in survey.infos}
        survey.problems += spatial_leakage(files, division, parts, places)
    _tell_misplaced(survey)
    if "train" in survey.counts:
        drawn = bool(survey.drawn_from)
        survey.problems += [] if drawn else propose_values(classes, survey.mask_values, survey.undeclared)
        survey.problems += compare_classes(classes, survey.counts, allowed=description.allow_absent, drawn=drawn)
    return survey.result()


@dataclass
class _Survey:
    """Gathers what is found, image by image."""

    description: DatasetDescription
    classes: ClassMap | None = None
    unused: int = 0
    problems: list[Problem] = field(default_factory=list)
    images: list[ImageFinding] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    samples: Counter[str] = field(default_factory=Counter)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    undeclared: dict[str | int, dict[str, int]] = field(default_factory=dict)
    mask_values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    infos: dict[Path, ImageInfo] = field(default_factory=dict)
    kind: ImageKind | None = None
    measured_alpha: list[Path] = field(default_factory=list)
    elsewhere: dict[Path, str | None] = field(default_factory=dict)
    label_regions: dict[str, Path] = field(default_factory=dict)
    duplicates: tuple[DuplicateFinding, ...] = ()
    ground: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    resized: list[str] = field(default_factory=list)
    drawn_from: Counter[str] = field(default_factory=Counter)

    def tell(
        self,
        kind: ProblemKind,
        message: str,
        files: Sequence[str] = (),
        *,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, severity, message, tuple(files)))

    def relative(self, path: Path) -> str:
        """Return a path relative to the root, where it lies there."""
        root = self.description.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def look(self, pair: Pair, regions: _Regions) -> None:
        """Read an image and its mask, and count the mask's classes."""
        self.samples.update(part for part, _ in regions)
        part = " and ".join(dict.fromkeys(part for part, _ in regions))
        finding = ImageFinding(pair.name, pair.relative, part)
        valid, turned = None, ""
        options = read_options(self.description)
        try:
            info = probe(pair.image, options)
            image, valid = read_valid_image(pair.image, options)
            self.infos[pair.image] = info
            if info.transparency is not None and transparency_shares(pair.image, info.transparency)[1] > _MEASURED:
                self.measured_alpha.append(pair.image)
            if info.orientation != 1:
                turned = f" when it stands upright, as its EXIF orientation {info.orientation} says"
            height, width, bands = image.shape
            finding = replace(finding, height=height, width=width, bands=bands, dtype=str(image.dtype))
            key = " ".join(map(content_key, pixel_files(pair.image)))
            self.pictures.append(Picture(pair.relative, part, key, fingerprint(image)))
        except SegshrinkError as error:
            self.tell("mismatched" if isinstance(error, DataError) else "unreadable", str(error), [pair.relative])
        self.images.append(finding)
        mask = self._mask(pair)
        if mask is None:
            return
        if finding.height is not None and finding.width is not None and mask.shape != (finding.height, finding.width):
            resized = resized_mask(mask, (finding.height, finding.width))
            if resized is not None and self.description.mask_resize is not None:
                self.resized.append(pair.expected or str(pair.mask))
                mask = resized
        if finding.height is not None and mask.shape != (finding.height, finding.width):
            remedy = "a mask must have its image's size"
            if resized is not None:
                remedy = "the proportions agree, so mask_resize: nearest mends it"
            self.tell(
                "mismatched",
                f"{pair.mask} is {mask.shape[0]} × {mask.shape[1]} pixels (height × width) but its image {pair.image} "
                f"is {finding.height} × {finding.width}{turned}; {remedy}",
                [pair.relative, pair.expected or str(pair.mask)],
            )
            return
        self.mask_values += np.bincount(mask.reshape(-1), minlength=256)
        if finding.height is not None:
            self._correct(pair, mask)
        if valid is not None:
            mask[~valid] = IGNORE_INDEX
        for name, window in regions:
            region = mask[window.slices] if window else mask
            counts = self.counts.setdefault(name, np.zeros(256, dtype=np.int64))
            counts += np.bincount(region.reshape(-1), minlength=256)

    def _correct(self, pair: Pair, mask: NDArray[np.uint8]) -> None:
        """Write accepted regions into an image's mask."""
        path = self.label_regions.get(pair.name)
        if path is None or self.classes is None:
            return
        try:
            corrected, _ = read_label_regions(path, pair.image, self.classes, mask.shape)
        except SegshrinkError as error:
            self.tell("unreadable", str(error), [self.relative(path)])
            return
        np.copyto(mask, corrected, where=corrected != IGNORE_INDEX)

    def _mask(self, pair: Pair) -> NDArray[np.uint8] | None:
        """Read a mask; undeclared pixels are noted and then ignored."""
        if pair.mask is None or self.classes is None:
            return None
        name = pair.expected or str(pair.mask)
        options = mask_options(self.description)
        if drawn := drawn_from(pair.mask):
            self.drawn_from[drawn] += 1
        try:
            mask = read_mask(pair.mask, self.classes, image=pair.image, options=options)
            if is_vector(pair.mask) and self.elsewhere.get(pair.mask, "") is not None:
                # Where a polygon leaves a trace the mask has two values.
                self.elsewhere[pair.mask] = misplaced(pair.mask, pair.image) if (mask == mask[0, 0]).all() else None
            return mask
        except UndeclaredError as error:
            for value, pixels in error.found.items():
                files = self.undeclared.setdefault(value, {})
                files[name] = files.get(name, 0) + pixels  # a file may be that of many images
            try:
                if drawn:
                    return read_mask(pair.mask, self.classes, image=pair.image, options=replace(options, tolerant=True))
                return read_mask(pair.mask, _tolerant(self.classes, error.found), options=options)
            except SegshrinkError:
                return None
        except SegshrinkError as error:
            self.tell("mismatched" if isinstance(error, DataError) else "unreadable", str(error), [name])
            return None

    def result(self) -> Inspection:
        """Put everything together."""
        undeclared = undeclared_findings(self.undeclared)
        if undeclared:
            self.problems.insert(0, undeclared_problem(self.undeclared, undeclared))
        if self.description.split.leaking:
            self.tell(
                "leaking",
                "the split is leaking: judged squares lie beside training squares of the same image, so scores are too "
                "good; use it only to compare with results that were made this way",
                severity="warning",
            )
        sizes = Counter(f"{image.height} × {image.width}" for image in self.images if image.height is not None)
        return Inspection(
            name=self.description.name,
            root=str(self.description.root),
            leaking=self.description.split.leaking,
            classes=_class_colors(self.classes),
            parts=tuple(_part(name, self) for name in (*PARTS, "unlabeled") if self.samples[name]),
            images=tuple(self.images),
            sizes=dict(sizes.most_common()),
            unused=self.unused,
            undeclared=undeclared,
            duplicates=self.duplicates,
            problems=tuple(sorted(self.problems, key=lambda problem: problem.severity)),
            band_names=None if self.kind is None else self.kind.band_names,
            resolution=self.description.resolution or (None if self.kind is None else self.kind.resolution),
            resize=None if self.description.resize is None else in_words(self.description.resize),
            georeferenced=self.kind is not None and self.kind.georeferenced,
            ground=self.ground,
            excluded=self.excluded,
            resized_masks=tuple(self.resized),
            merged=_merged(self.classes),
            drawn_from=dict(self.drawn_from),
        )


def _regions_of(files: Found, division: Division, survey: _Survey) -> list[tuple[Pair, _Regions]]:
    """Return the images of the split, and what part of them belongs where."""
    regions: dict[int, _Regions] = {}
    split = survey.description.split
    if split.patches is not None:
        kept = set(division.test)
        sizes = [(0, 0) if position in kept else _size(pair.image) for position, pair in enumerate(files.pairs)]
        try:
            squares = divide_patches(sizes, split)
        except DataError as error:
            survey.tell("split", f"{survey.description.name}: {error}")
            return [(pair, [("train", None)]) for pair in files.pairs]
        for part, members in (("train", squares.train), ("val", squares.val)):
            for position, window in members:
                regions.setdefault(position, []).append((part, window))
        for position in range(len(files.pairs)):
            # Images that are smaller than a square or unreadable are looked at all the same.
            regions.setdefault(position, [("test", None)] if position in kept else [])
    else:
        for part in PARTS:
            for position in getattr(division, part):
                # An image in two parts (already told) is counted in the first.
                regions.setdefault(position, [(part, None)])
    return [(files.pairs[position], regions[position]) for position in sorted(regions)]


def _size(path: Path) -> tuple[int, int]:
    try:
        info = probe(path)
    except SegshrinkError:
        return 0, 0  # told when the image is read
    return info.height, info.width


def _unlabeled(files: Found, survey: _Survey) -> tuple[Pair, ...]:
    try:
        return find_unlabeled(survey.description, files)
    except SegshrinkError as error:
        survey.tell("setup", str(error))
        return ()


def _tell_unpaired(files: Found, division: Division, survey: _Survey) -> None:
    needing = needs_mask(survey.description, files, division)
    bare = [files.pairs[position] for position in needing if files.pairs[position].mask is None]
    if bare:
        described = [f"{pair.relative} (expected {pair.expected or 'a second column'})" for pair in bare]
        survey.tell(
            "unpaired",
            f"{len(bare)} of {len(needing)} images have no mask: {listed(described)}; add the masks or correct 'masks'",
            [pair.relative for pair in bare],
        )
    elif all(files.pairs[position].mask is None for position in division.train):
        judged = any(files.pairs[position].mask is not None for position in division.val)
        survey.tell(
            "unpaired",
            "no training image has a mask: distill learns from a teacher alone (--teacher), judged by "
            f"{'the validation masks' if judged else 'agreement with it'}; train and a control need masks",
            severity="warning",
        )
    lost = meant_orphans(survey.description, files)
    if lost:
        described = [f"{mask} (expected {image})" for mask, image in lost]
        survey.tell(
            "unpaired",
            f"{len(lost)} masks have no image: {listed(described)}; add the images or move these masks away",
            [mask for mask, _ in lost],
        )


def _find_label_regions(files: Found, survey: _Survey) -> None:
    try:
        survey.label_regions, foreign = label_regions(survey.description, files)
    except DataError as error:
        survey.tell("setup", str(error))
        return
    if foreign:
        survey.tell("unpaired", foreign, severity="warning")


def _compare_kinds(survey: _Survey) -> None:
    """Tell where images differ in what their headers say."""
    if not survey.infos:
        return
    survey.kind = common_kind(survey.infos, survey.description, read_options(survey.description))
    survey.problems += survey.kind.problems
    if survey.measured_alpha:
        number = survey.infos[next(iter(survey.measured_alpha))].transparency
        files = [survey.relative(path) for path in survey.measured_alpha]
        survey.tell(
            "bands",
            f"band {number} of {len(files)} images ({listed(files)}) is marked as transparency, so it masks pixels "
            f"out, but holds numbers as measurements do; if it is a band, write bands: {number}",
            files,
            severity="warning",
        )


def _tell_misplaced(survey: _Survey) -> None:
    """Tell of each file of polygons that touches none of its images why that is."""
    for path, cause in survey.elsewhere.items():
        if cause is not None:
            name = survey.relative(path)
            survey.tell("misplaced", f"no polygon of {name} touches its image: {cause}", [name])


def _part(name: str, survey: _Survey) -> PartFinding:
    counts = survey.counts.get(name, np.zeros(256, dtype=np.int64))
    names = survey.classes.names if survey.classes else ()
    return PartFinding(
        name=name,
        samples=survey.samples[name],
        pixels=int(counts.sum()),
        ignored=int(counts[IGNORE_INDEX]),
        class_pixels={label: int(counts[index]) for index, label in enumerate(names)},
    )


def _tolerant(classes: ClassMap, undeclared: dict[Any, int]) -> ClassMap:
    """Return a class map that ignores what was found undeclared."""
    if classes.values is None:
        colors = tuple(parse_color(value) for value in undeclared)
        return replace(classes, ignored_colors=(*classes.ignored_colors, *colors))
    return replace(classes, ignored_values=(*classes.ignored_values, *undeclared))


def _merged(classes: ClassMap | None) -> dict[str, tuple[str | int, ...]]:
    if classes is None:
        return {}
    merged: dict[str, tuple[str | int, ...]] = {}
    more: list[tuple[str | int, int]] = [(format_color(color), index) for color, index in classes.more_colors]
    for value, index in (*more, *classes.more_values):
        first = format_color(classes.colors[index]) if classes.values is None else classes.values[index]
        merged[classes.names[index]] = (*merged.get(classes.names[index], (first,)), value)
    return merged


def _class_colors(classes: ClassMap | None) -> dict[str, str]:
    if classes is None:
        return {}
    return {name: format_color(color) for name, color in zip(classes.names, classes.colors, strict=True)}
