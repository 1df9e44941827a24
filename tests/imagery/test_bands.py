"""Bands of files taken in the order of a model's, by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from segshrink.errors import DataError
from segshrink.imagery import ReadOptions, open_scene, probe, read_valid_image
from segshrink.imagery.bands import choose_bands, same_bands
from segshrink.imagery.reading import BandReader
from segshrink.imagery.scaling import scaling_of
from segshrink.tiling import Window

RGBN = ("red", "green", "blue", "nir")
NORTH_UP = Affine(1, 0, 5, 0, -1, 5)
PIXELS = np.random.default_rng(3).integers(1, 999, (5, 6, 5)).astype(np.uint16)


def write(path: Path, names: tuple[str | None, ...], colors: list[ColorInterp] | None = None) -> Path:
    count = len(names)
    with rasterio.open(
        path, "w", driver="GTiff", transform=NORTH_UP, height=5, width=6, count=count, dtype="uint16"
    ) as file:
        file.write(PIXELS[:, :, :count].transpose(2, 0, 1))
        file.descriptions = names
        if colors:
            file.colorinterp = colors
    return path


@pytest.mark.parametrize(
    ("names", "model", "order"),
    [
        (("blue", "green", "red", "nir"), RGBN, [2, 1, 0, 3]),
        (("Blue", "GREEN", "Red", "Near_Infrared"), RGBN, [2, 1, 0, 3]),
        (("coastal", "blue", "green", "red", "nir"), RGBN, [3, 2, 1, 4]),
        (("red", "green", "blue", "nir"), ("nir", "red", "green"), [3, 0, 1]),
        (("red", "green", "blue", "nir"), RGBN, [0, 1, 2, 3]),
        ((None, None, None, None), RGBN, [0, 1, 2, 3]),
        (("Band 1", "Band 2", "Band 3", "Band 4"), RGBN, [0, 1, 2, 3]),
        (("blue", "green", "red", None), ("red", "green", "blue", "4"), [2, 1, 0, 3]),
        (("blue", "green", "red", None), RGBN, None),
        (("red", "red", "blue", "nir"), RGBN, None),
        (("B02", "B03", "B04", "B08"), RGBN, None),
        (("blue", "green", "red"), RGBN, None),
    ],
)
def test_a_files_bands_are_taken_in_the_models_order_or_refused(
    tmp_path: Path, names: tuple[str | None, ...], model: tuple[str, ...], order: list[int] | None
) -> None:
    path = write(tmp_path / "a.tif", names)
    if order is None:
        with pytest.raises(DataError, match=r"a\.tif") as told:
            open_scene(path, count=len(model), names=model)
        assert ("--bands" in str(told.value)) == (len(names) >= len(model))
        with pytest.raises(DataError, match=r"a\.tif"):
            read_valid_image(path, ReadOptions(bands=len(model), names=model))
        return
    with open_scene(path, count=len(model), names=model) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 5, 6))[0], PIXELS[:, :, order])
    np.testing.assert_array_equal(
        read_valid_image(path, ReadOptions(bands=len(model), names=model))[0], PIXELS[:, :, order]
    )


def test_the_refusal_names_the_line_that_mends_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ("blue", "green", "red", "thermal"))
    with pytest.raises(DataError, match="--bands 3,2,1,4"):
        open_scene(path, count=4, names=RGBN)
    with open_scene(path, count=4, names=RGBN, bands=[3, 2, 1, 4]) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 5, 6))[0], PIXELS[:, :, [2, 1, 0, 3]])


def test_transparency_is_no_near_infrared(tmp_path: Path) -> None:
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write(tmp_path / "rgba.tif", (None,) * 4, colors)
    with pytest.raises(DataError, match="--bands 1,2,3,4"):
        open_scene(path, count=4, names=RGBN)
    for names in (None, ("red", "green", "blue", "4")):  # models that were trained with it go on
        with open_scene(path, count=4, names=names) as scene:
            assert scene.bands == 4
    assert probe(path).band_names == ("red", "green", "blue")
    assert probe(path, ReadOptions(bands=4)).band_names == ("red", "green", "blue", "4")


def test_colors_name_bands_as_descriptions_do(tmp_path: Path) -> None:
    colors = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir]
    with open_scene(write(tmp_path / "a.tif", (None,) * 4, colors), count=4, names=RGBN) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 5, 6))[0], PIXELS[:, :, [2, 1, 0, 3]])


def test_names_that_say_nothing_contradict_nothing() -> None:
    assert same_bands(RGBN, ("Red", "2", "B", "near-infrared"))
    assert same_bands(None, RGBN)
    assert not same_bands(RGBN, ("blue", "green", "red", "nir"))


class Asked:
    """A dataset that counts what it is asked for; GDAL looks at every band each time."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.counts = dataset, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.counts[name] += 1
        return getattr(self.dataset, name)


@pytest.mark.parametrize("names", [(None,), ("red",)])
def test_many_bands_are_looked_at_as_often_as_few(tmp_path: Path, names: tuple[str | None, ...]) -> None:
    counts = []
    for count in (2, 60):
        path = tmp_path / f"{count}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=2, width=2, count=count, dtype="uint8", transform=NORTH_UP
        ) as file:
            file.descriptions = names * count
            file.nodata = 3
        with rasterio.open(path) as file:
            asked = Asked(file)
            bands = choose_bands(asked, None, count=None, name="many")
            BandReader(asked, bands, name="many")
            scaling_of(asked, bands)
            assert len(bands) == count
        counts.append(asked.counts)
    assert counts[0] == counts[1]
