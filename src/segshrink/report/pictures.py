"""The segmented images: which are shown, scaled down, in class colours, and where teacher and student differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segshrink import formatting
from segshrink.classes import IGNORE_INDEX
from segshrink.report.collect import ClassColor, ImageScore, Pictures, Run
from segshrink.report.selection import comparable, first, focus, labels

SIDE = 480
SHOWN = 10
IGNORED = (128, 128, 128)
MAX_PIXELS = 16_000_000
# What a run's pictures may be: Pillow would start other programs for some formats.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
# Where prediction and truth differ, drawn over the faded grey image.
ERROR_COLORS = {"student": (214, 64, 20), "teacher": (38, 110, 220), "both": (122, 31, 162)}


@dataclass(frozen=True)
class Tile:
    """One picture of a row: ``source`` is a data URI; ``kind`` is image, map or errors."""

    title: str
    note: str
    source: str
    kind: str
    alt: str


@dataclass(frozen=True)
class Example:
    """One image with all its pictures; ``group`` is best, median or worst."""

    name: str
    group: str
    rank: str
    width: int
    height: int
    tiles: tuple[Tile, ...]
    # Whether the errors are set against a teacher's.
    compared: bool


def choose(images: Sequence[ImageScore], shown: int = SHOWN) -> list[tuple[str, int, ImageScore]]:
    """Pick the best, median and worst images that have pictures, by mean IoU.

    Returns:
        (group, rank from 1, image) from best to worst; all images when there are no more than ``shown``.
    """
    scored = [image for image in images if image.mean_iou is not None and image.pictures is not None]
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


def examples(runs: Sequence[Run]) -> tuple[list[Example], list[str]]:
    """Return the chosen images with their pictures, and notes on what couldn't be shown."""
    main = focus(runs)
    if main is None or main.evaluation is None:
        return [], ["no run has been evaluated"]
    named = list(zip(labels(runs), runs, strict=True))
    chosen = choose(main.evaluation.per_image)
    total = sum(image.mean_iou is not None and image.pictures is not None for image in main.evaluation.per_image)
    rows, notes = [], []
    for group, rank, image in chosen:
        try:
            rows.append(_example(image, group, f"{rank} of {total}", main, named))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            notes.append(f"{image.name} could not be shown: {error}")
    if not chosen:
        notes.append("the evaluation kept no pictures")
    return rows, notes


def _example(image: ImageScore, group: str, rank: str, main: Run, named: list[tuple[str, Run]]) -> Example:
    if image.pictures is None or main.evaluation is None:
        raise ValueError("its pictures are missing")
    classes = main.evaluation.classes
    photo = _photo(image.pictures)
    truth = _indices(image.pictures.truth, photo.size)
    tiles = [
        Tile("Image", "", _jpeg(photo), "image", f"Photograph {image.name}"),
        Tile("Truth", "", _map(truth, classes), "map", f"True classes of {image.name}: {_shares(truth, classes)}"),
    ]
    predictions: dict[int, npt.NDArray[np.uint8]] = {}
    for label, run in named:
        score = _score_of(run, main, image.name)
        if score is None or score.pictures is None:
            continue
        index = _indices(score.pictures.prediction, photo.size)
        predictions[id(run)] = index
        note = f"mIoU {formatting.score(score.mean_iou)}"
        alt = f"Classes that {label} predicts for {image.name}: {_shares(index, classes)}"
        tiles.append(Tile(label, note, _map(index, classes), "map", alt))
    teacher = first([run for _, run in named], "teacher")
    other = predictions.get(id(teacher)) if teacher is not main else None
    label = next(label for label, run in named if run is main)
    tiles.append(_errors(photo, truth, predictions[id(main)], other, f"{image.name} that {label}"))
    return Example(image.name, group, rank, *photo.size, tuple(tiles), other is not None)


def _score_of(run: Run, main: Run, name: str) -> ImageScore | None:
    if run.evaluation is None or (run is not main and not comparable(run, main)):
        return None
    return next((image for image in run.evaluation.per_image if image.name == name), None)


def _errors(
    photo: Image.Image,
    truth: npt.NDArray[np.uint8],
    own: npt.NDArray[np.uint8],
    other: npt.NDArray[np.uint8] | None,
    subject: str,
) -> Tile:
    """Colour the pixels that the main run, its teacher or both get wrong, over the faded image."""
    picture = np.repeat(np.asarray(photo.convert("L"), dtype=np.float32)[..., None] * 0.35 + 140, 3, axis=2)
    judged = truth != IGNORE_INDEX
    wrong = judged & (own != truth)
    teacher_wrong = judged & (other != truth) if other is not None else np.zeros_like(wrong)
    groups = {"student": wrong & ~teacher_wrong, "teacher": teacher_wrong & ~wrong, "both": wrong & teacher_wrong}
    for key, mask in groups.items():
        picture[mask] = 0.15 * picture[mask] + 0.85 * np.array(ERROR_COLORS[key], dtype=np.float32)
    total = max(int(judged.sum()), 1)
    note = f"{formatting.percent(round(wrong.sum() / total, 2))} wrong"
    alt = f"Pixels of {subject} gets wrong: {note}"
    if other is not None:
        shares = {key: formatting.percent(round(mask.sum() / total, 2)) for key, mask in groups.items()}
        alt = f"{alt}; wrong alone {shares['student']}, only the teacher {shares['teacher']}, both {shares['both']}"
        note = f"{note}, {formatting.percent(round((judged & (own != other)).sum() / total, 2))} unlike the teacher"
    return Tile("Errors", note, _jpeg(Image.fromarray(picture.astype(np.uint8))), "errors", alt)


def _photo(pictures: Pictures) -> Image.Image:
    with Image.open(pictures.image, formats=_FORMATS) as opened:
        _check(opened)
        photo = opened.convert("RGB")
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return photo


def _indices(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    with Image.open(path, formats=_FORMATS) as opened:
        _check(opened)
        if opened.mode not in ("P", "L"):
            raise ValueError(f"{path} is not an index picture")
        return np.asarray(opened.resize(size, Image.Resampling.NEAREST), dtype=np.uint8)


def _check(opened: Image.Image) -> None:
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width} × {opened.height} pixels are too many for a picture of a report")


def _map(index: npt.NDArray[np.uint8], classes: tuple[ClassColor, ...]) -> str:
    palette = [0, 0, 0] * 256
    for place, entry in enumerate(classes):
        palette[3 * place : 3 * place + 3] = [int(entry.color[at : at + 2], 16) for at in (1, 3, 5)]
    palette[3 * 255 :] = IGNORED
    picture = Image.fromarray(np.ascontiguousarray(index))
    picture.putpalette(palette)
    return _uri(picture, "PNG", optimize=True)


def _shares(index: npt.NDArray[np.uint8], classes: tuple[ClassColor, ...]) -> str:
    counts = np.bincount(index.ravel(), minlength=256)
    total = max(int(counts[: len(classes)].sum()), 1)
    order = sorted(range(len(classes)), key=lambda place: -counts[place])
    return ", ".join(f"{classes[place].name} {100 * counts[place] / total:.0f} %" for place in order if counts[place])


def _jpeg(picture: Image.Image) -> str:
    return _uri(picture, "JPEG", quality=82, optimize=True)


def _uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), f"image/{kind.lower()}")


def data_uri(content: bytes, kind: str) -> str:
    """Return ``content`` as a data URI of MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
