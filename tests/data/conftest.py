"""A small data set on disk, painted file by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segshrink.config import DatasetDescription

LAND, ROAD, NONE = (0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4), (0, 0, 0)


class Painter:
    """Writes images of cloudy texture and masks whose upper half is land and lower half road."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, path: str, size=(40, 50), seed=0, bands=3) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (6, 7, 4), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))[:, :, :bands]
        self._save(path, pixels[:, :, 0] if bands == 1 else pixels)
        return pixels

    def mask(self, path: str, size=(40, 50), colors=(LAND, ROAD)) -> np.ndarray:
        pixels = np.empty((*size, 3), dtype=np.uint8)
        pixels[: size[0] // 2], pixels[size[0] // 2 :] = colors
        self._save(path, pixels)
        return pixels

    def pairs(self, *stems: str, size=(40, 50), first_seed=0) -> None:
        """For "north/a": north/images/a.png and north/masks/a.png."""
        for seed, stem in enumerate(stems, start=first_seed):
            folder, name = stem.rsplit("/", 1)
            self.image(f"{folder}/images/{name}.png", size, seed)
            self.mask(f"{folder}/masks/{name}.png", size)

    def text(self, path: str, *lines: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def describe(self, **changes) -> DatasetDescription:
        fields = {
            "name": "painted",
            "root": self.root,
            "images": "*/images/*.png",
            "masks": "*/masks/*.png",
            "classes": [{"name": "Land", "color": "#8429F6"}, {"name": "Road", "color": "#6EC1E4"}],
            "ignore": ["#000000"],
            "split": {"train": ["north"], "val": ["south"]},
        }
        return DatasetDescription.model_validate({**fields, **changes})

    def _save(self, path: str, pixels: np.ndarray) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(self.root / path)


@pytest.fixture
def painter(tmp_path: Path) -> Painter:
    """An empty folder to paint a data set into."""
    root = tmp_path / "data set"
    root.mkdir()
    return Painter(root)
