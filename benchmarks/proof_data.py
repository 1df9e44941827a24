"""What students of ``proof.py`` learn on: the pool of unlabeled aerial images, and lists of few labeled ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from segshrink.files import write_text

# Folder under the data, factor of the resolution: Banepa from 0.13 to 0.26 m a pixel, the others from 0.07 to 0.14 m.
SOURCES = (
    ("aerial-unlabeled/banepa", 2),
    ("aerial-unlabeled/hot-place-3", 2),
    ("hot-buildings/place-1/images", 2),
    ("hot-buildings/place-5/images", 2),
)
SIDE = 512
# Tiles of which more is as bright as no data are left out.
BRIGHT, MOST_BRIGHT = 250, 0.5
_PLACE = re.compile(r"-(\d+)-(\d+)-\d+$")


def write_pool(data: Path, out: Path) -> Path:
    """Join neighboring map tiles, reduced, to squares of 512 pixels, transparent where there is none; list them.

    Args:
        data: Folder of the shared data sets.
        out: Folder for the squares and ``pool.txt``; what is there already is kept.

    Returns:
        The list.
    """
    listing = out / "pool.txt"
    if listing.exists():
        return listing
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for source, factor in SOURCES:
        for (row, col), tiles in sorted(_squares(data / source, factor).items()):
            square = Image.new("RGBA", (SIDE, SIDE))
            for path, top, left in tiles:
                with Image.open(path) as image:
                    tile = image.convert("RGB").reduce(factor)
                if (np.asarray(tile).min(axis=2) >= BRIGHT).mean() <= MOST_BRIGHT:
                    square.paste(tile, (left, top))
            if np.asarray(square)[..., 3].any():
                path = out / f"{source.replace('/', '-')}-{row}-{col}.png"
                square.save(path)
                written.append(str(path.resolve()))
    write_text(listing, "\n".join(written) + "\n")
    return listing


def write_buildings(data: Path, place: str, count: int, pool: Path) -> None:
    """List the labeled tiles of a place, the same first ones for every count, and the unlabeled images beside them.

    Those are the place's other tiles or, where all are labeled, the pool's images of places without buildings' masks.

    Args:
        data: Folder of the buildings.
        place: Its folder in there.
        count: Labeled tiles; 0: all.
        pool: What ``write_pool`` gave; the lists are written beside it.
    """
    tiles = sorted((data / place / "images").glob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(tiles))
    drawn = {int(number) for number in order[: count or len(tiles)]}
    labeled = [f"{place}/images/{tile.name}" for number, tile in enumerate(tiles) if number in drawn]
    rest = [str(tile.resolve()) for number, tile in enumerate(tiles) if number not in drawn]
    others = [line for line in pool.read_text(encoding="utf-8").splitlines() if "hot-buildings" not in line]
    write_text(pool.with_name(f"{place}-{count}.txt"), "\n".join(labeled) + "\n")
    write_text(pool.with_name(f"{place}-{count}-pool.txt"), "\n".join(rest or others) + "\n")


def write_voc(data: Path, count: int, pool: Path) -> None:
    """List labeled images of Pascal VOC, drawn once for all runs, and the others without their masks.

    Args:
        data: Folder of Pascal VOC's layout.
        count: Labeled images.
        pool: What ``write_pool`` gave; the lists are written beside it.
    """
    names = (data / "ImageSets" / "Segmentation" / "train.txt").read_text(encoding="utf-8").split()
    drawn = {names[number] for number in np.random.default_rng(0).permutation(len(names))[:count]}
    rest = [f"JPEGImages/{name}.jpg" for name in names if name not in drawn]
    write_text(pool.with_name(f"voc-{count}.txt"), "\n".join(sorted(drawn)) + "\n")
    write_text(pool.with_name(f"voc-{count}-pool.txt"), "\n".join(rest) + "\n")


def _squares(folder: Path, factor: int) -> dict[tuple[int, int], list[tuple[Path, int, int]]]:
    """Return for each square its tiles, each with its row and column of pixels; tile names end in -x-y-zoom."""
    squares: dict[tuple[int, int], list[tuple[Path, int, int]]] = {}
    for path in sorted(folder.glob("*.jpg")):
        place = _PLACE.search(path.stem)
        if place is None:
            raise ValueError(f"{path} has no name like NAME-x-y-zoom.jpg")
        with Image.open(path) as image:
            side = image.width // factor
        each = SIDE // side
        col, row = (int(number) for number in place.groups())
        squares.setdefault((row // each, col // each), []).append((path, row % each * side, col % each * side))
    return squares
