"""The segmented images: which are shown, scaled down, in class colors, and where teacher and student differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from segshrink import formatting
from segshrink.classes import IGNORE_INDEX
from segshrink.errors import UsageError, nearest
from segshrink.evaluation_records import ClassRecord, ImageRecord
from segshrink.report.runs import Run, comparable, first, focus

Index = npt.NDArray[np.uint8]
# Which images are shown: so many by their score, ten by chance, or those of these names.
Images = int | Literal["random"] | Sequence[str]
SIDE = 480
SHOWN = 10
IGNORED = (128, 128, 128)
MAX_PIXELS = 16_000_000
# What a run's pictures may be: Pillow would start other programs for some formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
# Where prediction and truth differ, drawn over the faded gray image.
ERROR_COLORS = {"student": (214, 64, 20), "teacher": (38, 110, 220), "both": (122, 31, 162)}


@dataclass(frozen=True)
class Tile:
    """One picture of a row; ``kind`` is image, map or errors."""

    title: str
    note: str
    picture: Image.Image
    kind: str
    alt: str

    @property
    def source(self) -> str:
        """The picture as a data URI: maps in exact colors, the others small."""
        options: dict[str, Any] = {"format": "PNG"} if self.kind == "map" else {"format": "JPEG", "quality": 82}
        buffer = io.BytesIO()
        self.picture.save(buffer, optimize=True, **options)
        return data_uri(buffer.getvalue(), f"image/{options['format'].lower()}")


@dataclass(frozen=True)
class Example:
    """One image with all its pictures.

    Attributes:
        name: The scene's name.
        group: Best, median or worst; "chosen" where the user chose.
        rank: Its place among all.
        width: Of each picture, in pixels.
        height: The same.
        tiles: The pictures.
        compared: Whether the errors are set against a teacher's.
    """

    name: str
    group: str
    rank: str
    width: int
    height: int
    tiles: list[Tile]
    compared: bool


def choose(images: Sequence[ImageRecord], shown: int = SHOWN) -> list[tuple[str, int, ImageRecord]]:
    """Pick the best, median and worst images by mean IoU, of those that have one.

    Returns:
        (group, rank from 1, image) from best to worst; all images when there are no more than ``shown``.
    """
    scored = [image for image in images if image.mean_iou is not None]
    ordered = sorted(scored, key=lambda image: (-(image.mean_iou or 0.0), image.name))
    total = len(ordered)
    kept = min(total, shown)
    ends = kept * 3 // 10 or (1 if kept > 1 else 0)
    middle = kept - 2 * ends
    start = (total - middle) // 2
    chosen = [
        *(("best", index) for index in range(ends)),
        *(("median", index) for index in range(start, start + middle)),
        *(("worst", index) for index in range(total - ends, total)),
    ]
    return [(group, index + 1, ordered[index]) for group, index in chosen]


def choose_named(images: Sequence[ImageRecord], names: Sequence[str]) -> list[tuple[str, int, ImageRecord]]:
    """Pick images by name, in the order named, as ``choose`` does.

    Raises:
        UsageError: No picture was kept of an image of that name.
    """
    ordered = [image for _, _, image in choose(images, len(images))]
    ranks = {image.name: rank for rank, image in enumerate(ordered, start=1)}
    for name in names:
        if name not in ranks:
            raise UsageError(f"the evaluation kept no picture of an image '{name}'{nearest(name, ranks)}")
    return [("chosen", ranks[name], ordered[ranks[name] - 1]) for name in names]


def examples(runs: Sequence[Run], shown: Images = SHOWN) -> tuple[list[Example], list[str]]:
    """Return the chosen images with their pictures, and notes on what couldn't be shown.

    Args:
        runs: What the report is about.
        shown: How many, by score; "random" for ten by chance, alike in every report; or their names.
    """
    main = focus(runs)
    if main is None or main.evaluation is None:
        return [], ["no run has been evaluated"]
    images = [image for image in main.evaluation.per_image if image.mean_iou is not None]
    images = [image for image in images if main.folder.pictures_of(image)]
    rows, notes = [], []
    if shown == "random":
        names = sorted(image.name for image in images)
        drawn = np.random.default_rng(0).choice(len(names), min(SHOWN, len(names)), replace=False)
        shown = [names[place] for place in sorted(drawn)]
    chosen = choose(images, shown) if isinstance(shown, int) else choose_named(images, shown)
    for group, rank, image in chosen:
        try:
            rows.append(_example(image, group, f"{rank} of {len(images)}", main, main.evaluation.classes, runs))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            notes.append(f"{image.name} could not be shown: {error}")
    return rows, notes if images else ["the evaluation kept no pictures"]


def _example(
    image: ImageRecord, group: str, rank: str, main: Run, classes: Sequence[ClassRecord], runs: Sequence[Run]
) -> Example:
    files = main.folder.pictures_of(image)
    if files is None:
        raise ValueError("its pictures are missing")
    photo = _read(files[0]).convert("RGB")
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    truth = _indices(files[1], photo.size)
    tiles = [
        Tile("Image", "", photo, "image", f"Photograph {image.name}"),
        Tile("Truth", "", _map(truth, classes), "map", f"True classes of {image.name}: {_shares(truth, classes)}"),
    ]
    predictions: dict[str, Index] = {}
    for run in runs:
        scored = _image_of(run, main, image.name)
        predicted = run.folder.pictures_of(scored) if scored else None
        if scored is None or predicted is None:
            continue
        predictions[run.label] = index = _indices(predicted[2], photo.size)
        note = f"mIoU {formatting.score(scored.mean_iou)}"
        alt = f"Classes that {run.label} predicts for {image.name}: {_shares(index, classes)}"
        tiles.append(Tile(run.label, note, _map(index, classes), "map", alt))
    teacher = first(runs, "teacher")
    other = predictions.get(teacher.label) if teacher and teacher is not main else None
    tiles.append(_errors(photo, truth, predictions[main.label], other, f"{image.name} that {main.label}"))
    return Example(image.name, group, rank, *photo.size, tiles, other is not None)


def _image_of(run: Run, main: Run, name: str) -> ImageRecord | None:
    """Return another run's scores of an image of the main run, where they may be compared."""
    if run.evaluation is None or (run is not main and not comparable(run, main)):
        return None
    return next((image for image in run.evaluation.per_image if image.name == name), None)


def _errors(photo: Image.Image, truth: Index, predicted: Index, other: Index | None, subject: str) -> Tile:
    """Color the pixels that the main run, its teacher or both get wrong, over the faded image."""
    picture = np.repeat(np.asarray(photo.convert("L"), dtype=np.float32)[..., None] * 0.35 + 140, 3, axis=2)
    judged = truth != IGNORE_INDEX
    wrong = judged & (predicted != truth)
    teacher_wrong = judged & (other != truth) if other is not None else np.zeros_like(wrong)
    groups = {"student": wrong & ~teacher_wrong, "teacher": teacher_wrong & ~wrong, "both": wrong & teacher_wrong}
    for key, mask in groups.items():
        picture[mask] = 0.15 * picture[mask] + 0.85 * np.array(ERROR_COLORS[key], dtype=np.float32)
    total = max(int(judged.sum()), 1)

    def share(mask: npt.NDArray[np.bool_]) -> str:
        return formatting.percent(round(mask.sum() / total, 2))

    note = f"{share(wrong)} wrong"
    alt = f"Pixels of {subject} gets wrong: {note}"
    if other is not None:
        alone, teachers, both = (share(mask) for mask in groups.values())
        alt = f"{alt}; wrong alone {alone}, only the teacher {teachers}, both {both}"
        note = f"{note}, {share(judged & (predicted != other))} unlike the teacher"
    return Tile("Errors", note, Image.fromarray(picture.astype(np.uint8)), "errors", alt)


def _indices(path: Path, size: tuple[int, int]) -> Index:
    picture = _read(path)
    if picture.mode not in ("P", "L"):
        raise ValueError(f"{path} is not an index picture")
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST), dtype=np.uint8)


def _read(path: Path) -> Image.Image:
    with Image.open(path, formats=_FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} × {picture.height} pixels are too many for a picture of a report")
        picture.load()
        return picture


def _map(index: Index, classes: Sequence[ClassRecord]) -> Image.Image:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [ImageColor.getrgb(entry.color) for entry in classes]
    palette[IGNORE_INDEX] = IGNORED
    picture = Image.fromarray(np.ascontiguousarray(index))
    picture.putpalette(palette.tobytes())
    return picture


def _shares(index: Index, classes: Sequence[ClassRecord]) -> str:
    counts = np.bincount(index.ravel(), minlength=256)
    total = max(int(counts[: len(classes)].sum()), 1)
    order = sorted(range(len(classes)), key=lambda place: -counts[place])
    return ", ".join(f"{classes[place].name} {100 * counts[place] / total:.0f} %" for place in order if counts[place])


def data_uri(content: bytes, kind: str) -> str:
    """Return ``content`` as a data URI of MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
