"""Rasters of known content, written with rasterio alone, and a scene read at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from segshrink.imagery.scenes import open_scene
from segshrink.tiling import Window

Paint = Callable[..., Path]
# An image of three bands, and where on the ground it lies.
RGB = np.random.default_rng(7).integers(1, 255, (70, 90, 3), dtype=np.uint8)
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}


def whole(path: Path | str, **options: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read a scene at once."""
    with open_scene(path, **options) as scene:
        return scene.read(Window(0, 0, scene.height, scene.width))


def write_mask_beside(path: Path, filled: NDArray[np.bool_]) -> Path:
    """Write which pixels of an image have a value into the file where GDAL looks for it."""
    beside = path.with_name(f"{path.name}.msk")
    size = {"height": filled.shape[0], "width": filled.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(beside, "w", driver="GTiff", transform=PLACE["transform"], **size) as dataset:
        dataset.write(filled * np.uint8(255), 1)
        dataset.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": 2 for band in range(1, 5)})
    return beside


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Write (H, W, bands) or (H, W) numbers as a GeoTIFF, or as what ``driver`` says."""

    def write(name: str, pixels: NDArray[Any], *, mask: NDArray[np.bool_] | None = None, **options: Any) -> Path:
        path = tmp_path / name
        pixels = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
        described = {key: options.pop(key) for key in ("descriptions", "colorinterp") if key in options}
        overviews = options.pop("overviews", None)
        height, width, count = pixels.shape
        size = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
        options = {"driver": "GTiff", **size, **options}
        with (
            warnings.catch_warnings(),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **options) as dataset:
                for key, value in described.items():
                    setattr(dataset, key, value)
                dataset.write(pixels.transpose(2, 0, 1))
                if mask is not None:
                    dataset.write_mask(mask)
                if overviews is not None:
                    dataset.build_overviews(overviews, rasterio.enums.Resampling.average)
        return path

    return write
