"""What a data set's files say about themselves, compared, put right and handed to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from segshrink.config import Augmentation, DatasetDescription
from segshrink.data import CropModule, SceneStore, inspect_dataset, open_dataset, refuse_other_bands
from segshrink.errors import DataError, ModelError
from segshrink.model_description import ModelDescription, Normalization

NAMES = ("red", "green", "blue")


class Field:
    """A data set of GeoTIFFs of one band order, each of which can be written anew in another way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for number in range(4):
            self.image(number)
            mask = np.zeros((20, 24), np.uint8)
            mask[:10] = 1
            (root / "m").mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / f"m/{number}.png")

    def values(self, number: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
        """Return (20, 24, 3) numbers: red, green and blue differ by their hundreds."""
        noise = np.random.default_rng(number).integers(0, 99, (20, 24, 3))
        return np.add(noise, [2100, 3100, 4100]).astype(np.uint16)

    def image(
        self, number: int, *, order: tuple[int, ...] = (0, 1, 2), names: tuple[str, ...] | None = NAMES,
        tags: tuple[float, float] = (1.0, 0.0), pixel: float = 10.0, dtype: str = "uint16", extra: int = 0,
        crs: str | None = "EPSG:32633",
    ) -> None:  # fmt: skip
        pixels = self.values(number)[:, :, list(order)].astype(dtype)
        pixels = np.concatenate([pixels, pixels[:, :, :extra]], axis=2)
        (self.root / "i").mkdir(exist_ok=True)
        size = {"height": 20, "width": 24, "count": 3 + extra, "dtype": dtype, "crs": crs}
        place = Affine(pixel, 0, 5e5 + 1e4 * number, 0, -pixel, 5e6)
        with rasterio.open(self.root / f"i/{number}.tif", "w", driver="GTiff", transform=place, **size) as file:
            file.write(pixels.transpose(2, 0, 1))
            if names:
                file.descriptions = [*(names[band] for band in order), *[None] * extra]
            file.scales, file.offsets = (tags[0],) * (3 + extra), (tags[1],) * (3 + extra)

    def describe(self, **changes: Any) -> DatasetDescription:
        fields: dict[str, Any] = {
            "name": "field",
            "root": self.root,
            "images": "i/*.tif",
            "masks": "m/*.png",
            "classes": [{"name": "a", "value": 0}, {"name": "b", "value": 1}],
            "split": {"train": ["0", "1", "2"], "val": ["3"]},
        }
        return DatasetDescription.model_validate({**fields, **changes})


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


def warnings_of(description: DatasetDescription) -> str:
    found = inspect_dataset(description)
    assert found.sound
    return " | ".join(problem.message for problem in found.problems)


def test_names_and_resolution_are_read_from_the_files(field: Field) -> None:
    dataset = open_dataset(field.describe())
    assert (dataset.bands, dataset.dtype, dataset.band_names) == (3, "uint16", NAMES)
    assert dataset.resolution == pytest.approx(10, rel=1e-3)
    assert dataset.georeferenced
    assert open_dataset(field.describe(resolution=7)).resolution == 7
    assert warnings_of(field.describe()) == ""


def test_files_of_another_band_order_are_read_by_name_and_told(field: Field, tmp_path: Path) -> None:
    for number in (1, 3):
        field.image(number, order=(2, 1, 0))
    field.image(2)
    description = field.describe()

    told = warnings_of(description)
    assert "i/1.tif" in told
    assert "blue, green, red" in told
    dataset = open_dataset(description)
    for samples in (dataset.train, dataset.val):
        store = SceneStore(samples, dataset.classes, folder=tmp_path / "cache")
        for index, sample in enumerate(store.samples):
            expected = field.values(int(sample.image.stem))[
                :, :, [NAMES.index(name) for name in dataset.band_names or ()]
            ]
            np.testing.assert_array_equal(store.image(index), expected)


def test_names_that_do_not_fit_are_refused_with_the_line(field: Field) -> None:
    field.image(1, names=("B04", "B03", "B02"))
    with pytest.raises(DataError, match=r"i/1\.tif.*bands: \[1, 2, 3\]"):
        open_dataset(field.describe())
    assert not inspect_dataset(field.describe()).sound
    assert open_dataset(field.describe(bands=[1, 2, 3])).bands == 3


@pytest.mark.parametrize("bands", [[3, 1], ["blue", "red"], ["Blue", 1]])
def test_bands_are_chosen_by_number_and_name(field: Field, tmp_path: Path, bands: list[int | str]) -> None:
    dataset = open_dataset(field.describe(bands=bands))
    assert dataset.band_names == ("blue", "red")
    store = SceneStore(dataset.val, dataset.classes, folder=tmp_path / "cache")
    np.testing.assert_array_equal(store.image(0), field.values(3)[:, :, [2, 0]])
    with pytest.raises(DataError, match=r"0\.tif has no band 'nir'"):
        open_dataset(field.describe(bands=["nir"]))


def test_other_offsets_are_put_right_and_told(field: Field, tmp_path: Path) -> None:
    for number in range(4):
        field.image(number, tags=(1e-4, -0.1 if number == 1 else 0.0))
    told = warnings_of(field.describe())
    assert "i/1.tif" in told
    assert "-0.1" in told
    dataset = open_dataset(field.describe())
    assert dataset.scaling == ((1e-4, 0.0),) * 3
    store = SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache")
    np.testing.assert_array_equal(store.image(0), field.values(0))
    np.testing.assert_array_equal(store.image(1), field.values(1) - 1000)


def test_other_resolutions_are_told(field: Field) -> None:
    field.image(2, pixel=20)
    assert "i/2.tif" in warnings_of(field.describe())
    assert open_dataset(field.describe()).resolution is None


@pytest.mark.parametrize(
    ("number", "changes"), [(2, {"extra": 1}), (2, {"dtype": "float32"}), (3, {"extra": 1}), (3, {"dtype": "int16"})]
)
@pytest.mark.parametrize("unlabeled", [False, True])
def test_parts_of_another_kind_are_refused_before_training(
    field: Field, number: int, changes: dict[str, Any], unlabeled: bool
) -> None:
    field.image(number, **changes)
    split = (
        {"train": ["0", "1"], "val": ["3" if number == 2 else "2"]}
        if unlabeled
        else {"train": ["0", "1", "2"], "val": ["3"]}
    )
    description = field.describe(split=split, unlabeled="i/*.tif" if unlabeled else None)
    with pytest.raises(DataError, match=rf"i/{number}\.tif \("):
        open_dataset(description)


def test_a_declared_no_data_value_is_ignored(field: Field, tmp_path: Path) -> None:
    values = field.values(0)
    values[:, :5] = 0
    values[0, 10] = (0, 7, 7)  # one band of a dark pixel
    with rasterio.open(field.root / "i/0.tif", "r+") as file:
        file.write(values.transpose(2, 0, 1))
    dataset = open_dataset(field.describe(nodata=0))
    store = SceneStore(dataset.train, dataset.classes, folder=tmp_path / "cache")
    assert (store.mask(0)[:, :5] == 255).all()
    assert (store.mask(0)[:, 5:] != 255).all()
    assert store.valid(1) is None


def test_a_model_sees_the_bands_in_its_own_order(field: Field, tmp_path: Path) -> None:
    dataset = open_dataset(field.describe())
    model = ModelDescription(
        "mobile", dataset.classes, 3, Normalization((0.0,) * 3, (1.0,) * 3), 1, dtype="uint16",
        band_names=("blue", "green", "red"), scaling=((1e-4, 0.0),) * 3,
    )  # fmt: skip
    assert ModelDescription.from_dict(model.to_dict()) == model
    seen = open_dataset(field.describe(), model=model)
    store = SceneStore(seen.val, seen.classes, folder=tmp_path / "cache")
    np.testing.assert_array_equal(store.image(0), field.values(3)[:, :, ::-1])
    refuse_other_bands(model, seen)
    with pytest.raises(ModelError, match="blue, green, red"):
        refuse_other_bands(model, open_dataset(field.describe(bands=[1, 2, 3])))


@pytest.mark.parametrize(("crs", "preset", "flips"), [("EPSG:32633", "aerial", True), (None, "photo", "left-right")])
def test_augmentation_follows_the_data_unless_it_is_named(
    field: Field, crs: str | None, preset: str, flips: bool | str
) -> None:
    for number in range(4):
        field.image(number, crs=crs)
    description = field.describe()
    assert inspect_dataset(description).augmentation == preset
    dataset = open_dataset(description)
    settled = CropModule(dataset).augmentation
    assert (settled.preset, settled.flips, settled.quarter_turns) == (preset, flips, preset == "aerial")
    other = CropModule(dataset, augmentation=Augmentation.model_validate("photo")).augmentation
    assert (other.flips, other.quarter_turns) == ("left-right", False)
    mixed = Augmentation.model_validate({"preset": "aerial", "quarter_turns": False, "noise": 0})
    assert CropModule(dataset, augmentation=mixed).augmentation == mixed.model_copy(update={"flips": True})


def test_photos_keep_their_upside(field: Field, tmp_path: Path) -> None:
    data = CropModule(
        open_dataset(field.describe()), augmentation=Augmentation.model_validate("photo"), folder=tmp_path / "cache"
    )
    crops = data.train_crops()
    plans = [crops.plan(position, epoch=0) for position in range(64)]
    assert not any(plan.mirror_rows or plan.turns for plan in plans)
    assert {plan.mirror_cols for plan in plans} == {True, False}
