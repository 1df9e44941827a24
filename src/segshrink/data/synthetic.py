"""Synthetic aerial scenes with true labels: data to try, test and measure distillation without any download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segshrink.data.scenery import Layout, Traits, paint, plan_layout, smooth_noise
from segshrink.errors import ConfigError, FileError
from segshrink.files import replacing

Split = Literal["train", "val", "unlabeled"]
Labels = NDArray[np.uint8]

# Names and mask colors; five of them are those of the Dubai aerial data set.
CLASSES = (
    ("Building", "#3C1098"),
    ("Land", "#8429F6"),
    ("Road", "#6EC1E4"),
    ("Vegetation", "#FEDD3A"),
    ("Water", "#E2A929"),
    ("Field", "#3FA34D"),
)
BUILDING, LAND, ROAD, VEGETATION, WATER, FIELD = range(len(CLASSES))
DESCRIPTION_NAME = "dataset.yaml"
SMALLEST_SIZE = 32
# Steps of the scenes' traits from one scene to the next, modulo 1: numbers that fractions approximate badly, so that
# any few scenes in a row cover the whole range.
_TRAIT_STEPS = (0.618034, 0.302776, 0.414214, 0.732051)


@dataclass(frozen=True)
class SyntheticScene:
    """A generated scene: ``image`` (H, W, 3) uint8 RGB; ``truth`` and ``labels`` (H, W) uint8 class indices.

    ``labels`` is what the mask file holds: the truth, but for the errors of an annotator in the train split.
    """

    image: NDArray[np.uint8]
    truth: Labels
    labels: Labels


def generate_scene(seed: int, split: Split, *, number: int, size: int = 384) -> SyntheticScene:
    """Generate scene ``number`` of a split; it depends on these four arguments and on nothing else.

    Args:
        seed: Of the whole data set, >= 0.
        split: "train" (labels with errors), "val" or "unlabeled" (labels are the truth).
        number: Which scene of the split, from 0.
        size: Height and width in pixels, >= 32; a bigger scene shows more ground.

    Raises:
        ConfigError: An argument is outside its range.
    """
    splits = get_args(Split)
    if split not in splits:
        raise ConfigError(f"split is {split!r}; give one of {', '.join(splits)}")
    _check(seed=(seed, 0), number=(number, 0), size=(size, SMALLEST_SIZE))
    entropy = (seed, splits.index(split))
    first = np.random.default_rng(entropy).random(len(_TRAIT_STEPS))
    settlement, water, woods, season = ((first + number * np.array(_TRAIT_STEPS)) % 1).tolist()
    traits = Traits(settlement, water, woods, season, river=number % 2 == 0)
    layout_rng, look_rng, label_rng = np.random.default_rng((*entropy, number)).spawn(3)
    layout = plan_layout(layout_rng, size, traits)
    truth = _labels(layout, layout.footprints >= 0)
    labels = _hurried_labels(label_rng, layout) if split == "train" else truth
    return SyntheticScene(paint(look_rng, layout, traits.season), truth, labels)


def write_scenes(
    folder: Path, *, train: int = 8, val: int = 6, unlabeled: int = 40, size: int = 384, seed: int = 0
) -> Path:
    """Write a data set of synthetic aerial scenes, whole or not at all.

    A few labeled scenes, with an annotator's errors in the train masks, and many without labels: what distillation
    is for. Scene k of a split is the same whatever the counts.

    Args:
        folder: Where the data set goes; absent, empty, or holding this very data set already (then nothing is done).
        train: Number of labeled training scenes, >= 1.
        val: Number of scenes with clean masks to judge by, >= 1.
        unlabeled: Number of scenes without masks.
        size: Height and width of each scene in pixels, >= 32.
        seed: Of every random choice, >= 0.

    Returns:
        Path of the data set description (YAML).

    Raises:
        ConfigError: An argument is outside its range.
        FileError: The folder holds something else or can't be written.
    """
    _check(train=(train, 1), val=(val, 1), unlabeled=(unlabeled, 0), size=(size, SMALLEST_SIZE), seed=(seed, 0))
    folder = Path(folder)
    description = folder / DESCRIPTION_NAME
    text = _describe(train=train, val=val, unlabeled=unlabeled, size=size, seed=seed)
    if _is_written(folder, text):
        return description
    with replacing(folder) as temporary:
        for split, count in zip(get_args(Split), (train, val, unlabeled), strict=True):
            for number in range(count):
                scene = generate_scene(seed, split, number=number, size=size)
                _write_scene(temporary / split, f"{split}_{number:03d}", scene, labeled=split != "unlabeled")
        (temporary / DESCRIPTION_NAME).write_text(text, encoding="utf-8")
    return description


def _check(**arguments: tuple[int, int]) -> None:
    """Refuse values below their least."""
    for name, (value, least) in arguments.items():
        if value < least:
            raise ConfigError(f"{name} is {value}; give at least {least}")


def _labels(layout: Layout, built: NDArray[np.bool_]) -> Labels:
    """Return the class index of what is seen from above, with buildings where ``built`` says."""
    labels = np.full(built.shape, LAND, np.uint8)
    labels[layout.parcels >= 0] = FIELD
    labels[layout.woods] = VEGETATION
    labels[layout.water > 0] = WATER
    labels[layout.road > 0] = ROAD
    labels[built] = BUILDING
    labels[layout.crowns[0] > 0] = VEGETATION
    return labels


def _hurried_labels(rng: np.random.Generator, layout: Layout) -> Labels:
    """Return the labels of a hurried annotator, who forgets buildings and draws borders a few pixels off."""
    remembered = rng.random(len(layout.buildings) + 1) > 0.06
    labels = _labels(layout, (layout.footprints >= 0) & remembered[layout.footprints])
    rows, columns = np.indices(labels.shape)
    off_rows, off_columns = (smooth_noise(rng, len(labels), 40) for _ in range(2))
    drawn: Labels = ndimage.map_coordinates(labels, (rows + off_rows, columns + off_columns), order=0, mode="nearest")
    return drawn


def _is_written(folder: Path, text: str) -> bool:
    """Whether the folder holds the data set described by ``text``; it came whole or not at all.

    Raises:
        FileError: It holds something else or can't be read.
    """
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return False
        description = folder / DESCRIPTION_NAME
        if description.is_file() and description.read_bytes() == text.encode():
            return True
    except OSError as error:
        raise FileError(f"can't use {folder}: {error.strerror or error}; choose another folder") from error
    raise FileError(f"{folder} is not empty and holds other files than these scenes; choose another folder")


def _write_scene(folder: Path, name: str, scene: SyntheticScene, *, labeled: bool) -> None:
    images = folder / "images" if labeled else folder
    images.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(images / f"{name}.jpg", quality=92)
    if labeled:
        masks = folder / "masks"
        masks.mkdir(exist_ok=True)
        colors = np.array([list(bytes.fromhex(color[1:])) for _, color in CLASSES], np.uint8)
        Image.fromarray(colors[scene.labels]).save(masks / f"{name}.png")


def _describe(*, train: int, val: int, unlabeled: int, size: int, seed: int) -> str:
    classes = "".join(f'  - {{name: {name}, color: "{color}"}}\n' for name, color in CLASSES)
    return (
        f"# Synthetic aerial scenes of segshrink: seed {seed}, {size} x {size} pixels,\n"
        f"# {train} train (masks with an annotator's errors), {val} val (clean masks), {unlabeled} unlabeled.\n"
        "name: synthetic-aerial\n"
        "root: .\n"
        'images: "*/images/*.jpg"\n'
        'masks: "*/masks/*.png"\n'
        f"classes:\n{classes}"
        "split:\n"
        "  train: [train]\n"
        "  val: [val]\n" + ('unlabeled: "unlabeled/*.jpg"\n' if unlabeled else "")
    )
