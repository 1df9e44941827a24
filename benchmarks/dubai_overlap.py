"""Find where the Dubai tiles show the same ground, and write masks of what both label sets call the same.

    python benchmarks/dubai_overlap.py --data ../shared/data/dubai --out /data/dubai-consensus

Tile 7 and tile 4 share ground with tile 8 at the same scale. Each pair's place is where the edges of one mosaic
correlate best with those of the other (at a quarter of the resolution, then to the pixel). On the shared ground a pixel
keeps its label where both tiles have the same; every other pixel is ignored. ``dataset.yaml`` in ``--out`` describes
the result: a model that learned from none of the tiles 4, 7 and 8 can be judged on it (``segshrink evaluate --data``).
``results/dubai_overlap.md`` says how far the annotators agree with each other: no score above it means anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

from segshrink import Confusion, Dataset, SceneStore, load_dataset, open_dataset
from segshrink.evaluation_records import ScoresRecord
from segshrink.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ((7, 8), (4, 8))
# Side by side in a mosaic.
PARTS = 3
REDUCTION = 4
# Share of the smaller mosaic that must overlap for a correlation to count.
LEAST_OVERLAP = 0.03
IGNORED = 255


class Mosaic:
    """A tile's nine parts side by side: ``image`` (H, W) gray, ``labels`` (H, W), and where each part lies."""

    def __init__(self, dataset: Dataset, tile: int) -> None:
        samples = [sample for sample in dataset.train if sample.image.parent.parent.name == f"Tile {tile}"]
        self.samples = sorted(samples, key=lambda sample: sample.image.name)
        store = SceneStore(self.samples, dataset.classes)
        shapes = [store.shape(number) for number in range(len(store))]
        heights = [max(shapes[row * PARTS + col][0] for col in range(PARTS)) for row in range(PARTS)]
        widths = [max(shapes[row * PARTS + col][1] for row in range(PARTS)) for col in range(PARTS)]
        self.image = np.zeros((sum(heights), sum(widths)), np.float32)
        self.labels = np.full(self.image.shape, IGNORED, np.uint8)
        self.places: list[tuple[slice, slice]] = []
        for number, (height, width) in enumerate(shapes):
            row, col = sum(heights[: number // PARTS]), sum(widths[: number % PARTS])
            place = slice(row, row + height), slice(col, col + width)
            self.image[place] = np.asarray(store.image(number)).mean(axis=2)
            self.labels[place] = store.mask(number)
            self.places.append(place)


def edges(image: NDArray[Any], reduction: int) -> NDArray[Any]:
    """Return the strength of edges at a lower resolution, the strongest limited, around 0."""
    small = ndimage.zoom(ndimage.gaussian_filter(image, reduction / 2), 1 / reduction, order=1)
    strength = np.hypot(ndimage.sobel(small, 0), ndimage.sobel(small, 1))
    limited = np.minimum(strength, np.quantile(strength, 0.98))
    around: NDArray[Any] = limited - limited.mean()
    return around


def register(first: NDArray[Any], second: NDArray[Any]) -> tuple[int, int, float]:
    """Return the row and column of ``second`` where the corner of ``first`` lies, and their correlation there."""
    one, other = edges(first, REDUCTION), edges(second, REDUCTION)
    products = signal.fftconvolve(other, one[::-1, ::-1])
    pixels = signal.fftconvolve(np.ones_like(other), np.ones_like(one))
    energy = signal.fftconvolve(other**2, np.ones_like(one)) * signal.fftconvolve(
        np.ones_like(other), one[::-1, ::-1] ** 2
    )
    correlations = products / np.sqrt(np.maximum(energy, 1e-9))
    correlations[pixels < LEAST_OVERLAP * min(one.size, other.size)] = 0
    best = np.unravel_index(correlations.argmax(), correlations.shape)
    row, col = (int(place - side + 1) * REDUCTION for place, side in zip(best, one.shape, strict=True))
    sharp, wide = edges(first, 1), edges(second, 1)
    near = range(-REDUCTION, REDUCTION + 1)
    corners = [(row + down, col + right) for down in near for right in near]
    correlation, row, col = max((overlap_correlation(sharp, wide, *corner), *corner) for corner in corners)
    return row, col, correlation


def overlap_correlation(first: NDArray[Any], second: NDArray[Any], row: int, col: int) -> float:
    """Return the correlation of the overlap, the corner of ``first`` at (row, col) of ``second``."""
    one, other = overlap(first.shape, second.shape, row, col)
    return float(np.corrcoef(first[one].ravel(), second[other].ravel())[0, 1])


def overlap(
    first: tuple[int, ...], second: tuple[int, ...], row: int, col: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the shared ground in the first and in the second mosaic."""
    spans = [(max(0, at), min(there, at + here)) for at, here, there in zip((row, col), first, second, strict=True)]
    rows, cols = (slice(start, stop) for start, stop in spans)
    return (slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col)), (rows, cols)


def main(arguments: Sequence[str]) -> None:
    """Register the pairs, write the masks and the annotators' agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with 'Tile 2' ...")
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and dataset.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)
    dataset = open_dataset(load_dataset(ROOT / "configs/data/dubai.yaml", [f"root={given.data.resolve()}"]))
    mosaics = {tile: Mosaic(dataset, tile) for tile in sorted({tile for pair in PAIRS for tile in pair})}
    agreed = {tile: np.full(mosaic.labels.shape, IGNORED, np.uint8) for tile, mosaic in mosaics.items()}
    rows = []
    for first, second in PAIRS:
        row, col, correlation = register(mosaics[first].image, mosaics[second].image)
        one, other = overlap(mosaics[first].labels.shape, mosaics[second].labels.shape, row, col)
        here, there = mosaics[first].labels[one], mosaics[second].labels[other]
        scores = Confusion(len(dataset.classes)).update(here, np.where(here == IGNORED, IGNORED, there)).scores()
        same = np.where(here == there, here, IGNORED)
        for tile, place in ((first, one), (second, other)):
            agreed[tile][place] = np.where(same == IGNORED, agreed[tile][place], same)
        rows.append(
            {
                "tiles": [first, second],
                "corner": [row, col],
                "pixels": list(here.shape),
                "edge_correlation": round(correlation, 3),
                "consensus_pixels": int((same != IGNORED).sum()),
                "scores": ScoresRecord(**scores.to_lists()).to_json(),
            }
        )
    write_masks(dataset, mosaics, agreed, given.out.resolve())
    write_results(rows, dataset.classes.names, given.results)


def write_masks(dataset: Dataset, mosaics: dict[int, Mosaic], agreed: dict[int, NDArray[np.uint8]], out: Path) -> None:
    """Write the consensus of every part that has some, and a description of them."""
    unused = next(sample for sample in dataset.train if sample.image.parent.parent.name == "Tile 6")
    lines = []
    for tile, mosaic in mosaics.items():
        for sample, place in zip(mosaic.samples, mosaic.places, strict=True):
            if (agreed[tile][place] != IGNORED).any():
                mask = out / "masks" / f"tile-{tile}-{sample.image.stem}.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(agreed[tile][place]).save(mask)
                lines.append(f"{sample.image}\t{mask}")
    # A data set has training images; these teach nothing.
    blank = out / "masks" / "none.png"
    Image.fromarray(np.full_like(SceneStore([unused], dataset.classes).mask(0), IGNORED)).save(blank)
    write_text(out / "pairs.txt", "\n".join([*lines, f"{unused.image}\t{blank}"]) + "\n")
    classes = "\n".join(
        f'  - {{name: {entry.name}, color: "{entry.color}", value: {index}}}'
        for index, entry in enumerate(dataset.description.classes)
    )
    judged = ", ".join(f'"{line.partition(chr(9))[0]}"' for line in lines)
    write_text(
        out / "dataset.yaml",
        f"# Written by benchmarks/dubai_overlap.py to judge with: nothing is labeled in the training image.\n"
        f"name: dubai-consensus\n"
        f"root: .\nimages: pairs.txt\nmask_kind: index\nclasses:\n{classes}\nignore: [{IGNORED}]\n"
        f'split: {{train: ["{unused.image}"], val: [{judged}]}}\n',
    )


def write_results(rows: list[dict[str, Any]], classes: Sequence[str], results: Path) -> None:
    """Write how far the annotators agree."""
    head = ["tiles", "shared ground", "edges correlate", "same label", "mIoU", *classes]
    lines = [
        "# Dubai tiles: where they show the same ground, and how far two label sets agree there",
        "",
        "Written by `benchmarks/dubai_overlap.py`. The scores are those of one label set against the other.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for row in rows:
        scores = row["scores"]
        values = [
            " and ".join(map(str, row["tiles"])),
            " × ".join(map(str, row["pixels"])),
            f"{row['edge_correlation']:.2f}",
            f"{scores['accuracy']:.3f}",
            f"{scores['mean_iou']:.3f}",
            *(f"{value:.3f}" for value in scores["iou"]),
        ]
        lines.append(f"| {' | '.join(values)} |")
    write_text(results / "dubai_overlap.md", "\n".join(lines) + "\n")
    write_json(results / "dubai_overlap.json", {"pairs": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
