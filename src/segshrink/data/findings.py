"""What an inspection of a data set found: plain data that can be written as JSON."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

ProblemKind = Literal[
    "setup", "split", "unpaired", "unreadable", "mismatched", "undeclared", "duplicate", "near-duplicate", "classes",
    "leaking", "bands", "misplaced",
]  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or that should be known.

    Attributes:
        kind: What sort of problem.
        severity: "error" must be fixed before training; "warning" should be looked at.
        message: One sentence with the remedy.
        files: All files that it concerns, relative to the root.
    """

    kind: ProblemKind
    severity: Literal["error", "warning"]
    message: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class ImageFinding:
    """One image; sizes are None where the file is unreadable.

    Attributes:
        name: The sample's name.
        path: The image relative to the root.
        part: "train", "val", "test", "unlabeled", or "train and val" with a leaking split.
        height: Pixels.
        width: Pixels.
        bands: Number of bands.
        dtype: Data type of the pixel values.
    """

    name: str
    path: str
    part: str
    height: int | None = None
    width: int | None = None
    bands: int | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class PartFinding:
    """One part of the split.

    Attributes:
        name: "train", "val", "test" or "unlabeled".
        samples: Images (or squares of images, with a leaking split).
        pixels: Pixels whose mask could be read.
        ignored: Those of them without a label.
        class_pixels: Class name → pixels.
    """

    name: str
    samples: int
    pixels: int
    ignored: int
    class_pixels: dict[str, int]

    @property
    def class_shares(self) -> dict[str, float]:
        """Class name → share of the labeled pixels, 0 to 1; 0 for all where nothing is labeled."""
        labeled = max(self.pixels - self.ignored, 1)
        return {name: pixels / labeled for name, pixels in self.class_pixels.items()}

    @property
    def ignored_share(self) -> float:
        """Share of pixels without a label, 0 to 1."""
        return self.ignored / max(self.pixels, 1)


@dataclass(frozen=True)
class UndeclaredFinding:
    """A mask color ("#RRGGBB") or value that the description doesn't declare.

    Attributes:
        value: The color or value.
        pixels: How many pixels have it.
        files: Mask relative to the root → how many of its pixels have it, the most first.
    """

    value: str | int
    pixels: int
    files: dict[str, int]


@dataclass(frozen=True)
class DuplicateFinding:
    """Two images that show the same.

    Attributes:
        first: Image relative to the root.
        first_part: The part of the split that it is in.
        second: The other image.
        second_part: Its part.
        identical: Whether the files are the same, byte for byte.
        distance: Share of gradients with another direction; 0 the same picture, 0.5 unrelated.
    """

    first: str
    first_part: str
    second: str
    second_part: str
    identical: bool
    distance: float


@dataclass(frozen=True)
class Inspection:
    """All that was found about a data set.

    Attributes:
        name: The data set's name.
        root: Its folder.
        leaking: Whether judged pixels lie beside training pixels.
        classes: Class name → color "#RRGGBB".
        parts: The parts of the split.
        images: Images of the split and unlabeled ones; not those that no part names.
        sizes: "height × width" → number of images, the most frequent first.
        unused: Number of images that no part of the split names.
        undeclared: Undeclared mask colors or values, the most frequent first; at most 256.
        duplicates: Pairs of images that show the same, across parts, and identical files within a part.
        problems: Everything that is wrong, errors first.
        band_names: What the bands are called, as a model records it; None where nothing says.
        resolution: Meters a pixel; None where it isn't known or differs.
        resize: Working size, in words; None where there is none.
        georeferenced: Whether images say where on the ground they lie, so that crops are turned and mirrored freely.
        ground: Groups of training images that are independent of each other, as the names of the declared groups that
            share ground; an image of no group is one by itself.
        excluded: Images that the description excludes.
        resized_masks: Masks that are brought to their image's size.
        merged: Class name → its colors or values in masks, of classes that have several.
        drawn_from: What masks are drawn from where they are no images, such as "COCO annotations" → how many.
    """

    name: str
    root: str
    leaking: bool
    classes: dict[str, str]
    parts: tuple[PartFinding, ...]
    images: tuple[ImageFinding, ...]
    sizes: dict[str, int]
    unused: int
    undeclared: tuple[UndeclaredFinding, ...]
    duplicates: tuple[DuplicateFinding, ...]
    problems: tuple[Problem, ...]
    band_names: tuple[str, ...] | None = None
    resolution: float | None = None
    resize: str | None = None
    georeferenced: bool = False
    ground: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    resized_masks: tuple[str, ...] = ()
    merged: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    drawn_from: dict[str, int] = field(default_factory=dict)

    @property
    def augmentation(self) -> Literal["aerial", "photo"]:
        """How crops are changed where a recipe doesn't say."""
        return "aerial" if self.georeferenced else "photo"

    @property
    def faults(self) -> dict[Problem, int]:
        """The first problem of each kind → how many are like it: the same sentence about other files and numbers."""
        first: dict[tuple[str, ...], Problem] = {}
        counts: Counter[Problem] = Counter()
        for problem in self.problems:
            message = problem.message
            for name in (self.root, *sorted(problem.files, key=len, reverse=True)):
                message = message.replace(name, "*")
            alike = (problem.kind, problem.severity, re.sub(r"\d+", "*", message))
            counts[first.setdefault(alike, problem)] += 1
        return dict(counts)

    @property
    def sound(self) -> bool:
        """Whether nothing must be fixed; warnings don't count."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping, with ``sound`` and the class shares of each part."""
        mapping = asdict(self)
        for part, written in zip(self.parts, mapping["parts"], strict=True):
            written["class_shares"] = part.class_shares
            written["ignored_share"] = part.ignored_share
        return {**mapping, "augmentation": self.augmentation, "sound": self.sound}
