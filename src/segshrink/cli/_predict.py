"""Prediction of plain images: which files are written, and writing them; imports no torch for ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segshrink.errors import ConfigError, ModelError
from segshrink.imagery import probe, read_image, write_index_png, write_overlay
from segshrink.prediction import Predictor


@dataclass(frozen=True)
class Files:
    """An image and what is written for it: class numbers (palette PNG) and the classes laid over the image (JPEG)."""

    image: Path
    index: Path
    overlay: Path


def plan_files(images: Sequence[Path], out: Path) -> list[Files]:
    """Say what is written where, before anything is.

    Args:
        images: The images.
        out: A file ending in ``.png`` for a single image, else a folder.

    Raises:
        ConfigError: Two images would get one name, an image would be overwritten, or several images one file.
    """
    as_file = out.suffix != "" and not out.is_dir()
    if as_file and (out.suffix.lower() != ".png" or len(images) > 1):
        what = f"for {len(images)} images" if len(images) > 1 else "as class numbers"
        raise ConfigError(f"--out {out} can't be written {what}; give a folder, or a .png file for one image")
    planned: dict[Path, Files] = {}
    for image in images:
        index = out if as_file else out / f"{image.stem}.png"
        files = Files(image, index, index.with_name(f"{index.stem}.overlay.jpg"))
        if (taken := planned.get(index)) is not None:
            raise ConfigError(f"{taken.image} and {image} would both become {index}; segment them into two folders")
        if {index.resolve(), files.overlay.resolve()} & {other.resolve() for other in images}:
            raise ConfigError(f"{index} would overwrite an image that is segmented; choose another folder")
        planned[index] = files
    return list(planned.values())


def open_predictor(model: Path, *, tile: int, overlap: int) -> Predictor:
    """Open a model; a torch model runs on the cores that are free."""
    predictor = Predictor(model, tile=tile, overlap=overlap)
    if model.suffix.lower() != ".onnx":
        from segshrink.cli._work import use_free_threads

        use_free_threads()
    return predictor


def segment(predictor: Predictor, files: Files) -> None:
    """Segment one image and write both files.

    Raises:
        FileError: The image can't be read, or a file can't be written.
        ModelError: The image's bands are not the model's.
    """
    info = probe(files.image)
    if info.bands != predictor.backend.bands:
        raise ModelError(
            f"{files.image} has {info.bands} band{'s' if info.bands != 1 else ''}, but model "
            f"'{predictor.backend.name}' takes {predictor.backend.bands}; give images with the bands it was trained on"
        )
    image = read_image(files.image)
    index = predictor.predict_array(image).index
    write_overlay(files.overlay, image, index, predictor.classes)
    write_index_png(files.index, index, predictor.classes)
