"""Writing synthetic scenes as a data set: images, colour masks and the description file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segshrink.data.synthetic.labels import CLASSES
from segshrink.data.synthetic.scene import SMALLEST_SIZE, Split, SyntheticScene, generate_scene
from segshrink.errors import ConfigError, FileError
from segshrink.files import replacing

DESCRIPTION_NAME = "dataset.yaml"


def write_scenes(
    folder: Path, *, train: int = 8, val: int = 6, unlabeled: int = 40, size: int = 384, seed: int = 0
) -> Path:
    """Write a data set of synthetic aerial scenes, whole or not at all.

    A few labelled scenes, with an annotator's errors in the train masks, and many without labels: what distillation
    is for. Scene k of a split is the same whatever the counts.

    Args:
        folder: Where the data set goes; absent, empty, or holding this very data set already (then nothing is done).
        train: Number of labelled training scenes, >= 1.
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
    _check(train=train, val=val, unlabeled=unlabeled, size=size, seed=seed)
    folder = Path(folder)
    description = folder / DESCRIPTION_NAME
    text = _describe(train=train, val=val, unlabeled=unlabeled, size=size, seed=seed)
    if _is_written(folder, text):
        return description
    with replacing(folder) as temporary:
        counts: tuple[tuple[Split, int], ...] = (("train", train), ("val", val), ("unlabeled", unlabeled))
        for split, count in counts:
            for number in range(count):
                scene = generate_scene(seed, split, number=number, size=size)
                _write_scene(temporary / split, f"{split}_{number:03d}", scene, labeled=split != "unlabeled")
        (temporary / DESCRIPTION_NAME).write_text(text, encoding="utf-8")
    return description


def _check(*, train: int, val: int, unlabeled: int, size: int, seed: int) -> None:
    least = {"train": (train, 1), "val": (val, 1), "unlabeled": (unlabeled, 0), "size": (size, SMALLEST_SIZE)}
    for name, (value, smallest) in (least | {"seed": (seed, 0)}).items():
        if value < smallest:
            raise ConfigError(f"{name} is {value}; give at least {smallest}")


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
