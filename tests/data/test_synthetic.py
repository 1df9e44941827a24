"""Synthetic scenes: reproducible, balanced as promised, labels true to the picture, errors in train only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from segshrink.config import load_dataset
from segshrink.data.scenery import Axes, Traits, fractal_noise, paint, plan_layout, smooth_noise
from segshrink.data.synthetic import CLASSES, SyntheticScene, generate_scene, write_scenes
from segshrink.errors import ConfigError, FileError

NAMES = [name for name, _ in CLASSES]


@pytest.fixture(scope="module")
def train_scenes() -> list[SyntheticScene]:
    return [generate_scene(0, "train", number=number) for number in range(8)]


@pytest.fixture(scope="module")
def val_scenes() -> list[SyntheticScene]:
    return [generate_scene(0, "val", number=number) for number in range(8)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "scenes"
    return write_scenes(folder, train=2, val=2, unlabeled=3, size=64, seed=5)


def shares(scenes: list[SyntheticScene]) -> dict[str, float]:
    counts = sum(np.bincount(scene.truth.ravel(), minlength=len(CLASSES)) for scene in scenes)
    return dict(zip(NAMES, counts / counts.sum(), strict=True))


def test_scene_depends_on_seed_split_and_number_only() -> None:
    first = generate_scene(3, "train", number=2, size=96)
    again = generate_scene(3, "train", number=2, size=96)
    for field in ("image", "truth", "labels"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    others = [
        generate_scene(4, "train", number=2, size=96),
        generate_scene(3, "val", number=2, size=96),
        generate_scene(3, "train", number=1, size=96),
    ]
    for other in others:
        assert (first.truth != other.truth).mean() > 0.1


def test_files_of_a_scene_are_the_same_whatever_the_counts(written: Path, tmp_path: Path) -> None:
    other = write_scenes(tmp_path / "more", train=3, val=1, unlabeled=1, size=64, seed=5)
    for name in ("train/images/train_001.jpg", "train/masks/train_001.png", "val/masks/val_000.png"):
        assert (written.parent / name).read_bytes() == (other.parent / name).read_bytes()


@pytest.mark.parametrize("size", [32, 33, 97, 500])
def test_any_size(size: int) -> None:
    scene = generate_scene(1, "train", number=0, size=size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == scene.truth.dtype == scene.labels.dtype == np.uint8
    assert scene.truth.shape == scene.labels.shape == (size, size)
    assert max(scene.truth.max(), scene.labels.max()) < len(CLASSES)


def test_class_shares(train_scenes: list[SyntheticScene], val_scenes: list[SyntheticScene]) -> None:
    found = shares(train_scenes + val_scenes)
    expected = {
        "Building": (0.03, 0.09),
        "Land": (0.33, 0.47),
        "Road": (0.04, 0.09),
        "Vegetation": (0.10, 0.20),
        "Water": (0.04, 0.13),
        "Field": (0.15, 0.27),
    }
    for name, (low, high) in expected.items():
        assert low < found[name] < high, (name, found[name])


def test_every_class_occurs_in_each_split(train_scenes: list[SyntheticScene], val_scenes: list[SyntheticScene]) -> None:
    for scenes in (train_scenes, val_scenes[:6]):
        assert min(shares(scenes).values()) > 0.01


def test_only_train_labels_have_errors(train_scenes: list[SyntheticScene], val_scenes: list[SyntheticScene]) -> None:
    wrong = [float((scene.labels != scene.truth).mean()) for scene in train_scenes]
    assert all(0.02 < share < 0.2 for share in wrong), wrong
    assert all((scene.labels == scene.truth).all() for scene in val_scenes)
    unlabeled = generate_scene(0, "unlabeled", number=0, size=64)
    assert (unlabeled.labels == unlabeled.truth).all()


def test_label_errors_leave_the_picture_alone(train_scenes: list[SyntheticScene]) -> None:
    """Buildings go missing from the labels but no large new ones appear: labels are the truth, disturbed."""
    building = NAMES.index("Building")
    labelled = sum(int((scene.labels == building).sum()) for scene in train_scenes)
    true = sum(int((scene.truth == building).sum()) for scene in train_scenes)
    assert 0.75 * true < labelled < true
    near_true = sum(
        int(((scene.labels == building) & ndimage.binary_dilation(scene.truth == building, iterations=9)).sum())
        for scene in train_scenes
    )
    assert near_true > 0.99 * labelled


def test_truth_lies_on_the_edges_of_the_picture(val_scenes: list[SyntheticScene]) -> None:
    """The picture changes most where the truth changes: moving the truth either way loses contrast."""

    def contrast(columns: int, rows: int) -> float:
        total = 0.0
        for scene in val_scenes:
            image = scene.image.astype(np.float64)
            truth = np.roll(scene.truth, (rows, columns), (0, 1))
            step = np.abs(np.diff(image, axis=1)).mean(axis=2)
            total += step[:, 8:-8][(truth[:, 1:] != truth[:, :-1])[:, 8:-8]].mean()
            step = np.abs(np.diff(image, axis=0)).mean(axis=2)
            total += step[8:-8][(truth[1:] != truth[:-1])[8:-8]].mean()
        return total

    aligned = contrast(0, 0)
    for move in ((2, 0), (-2, 0), (0, 2), (0, -2), (1, 1), (-1, -1)):
        assert aligned > contrast(*move)


def test_scenes_differ_in_light(train_scenes: list[SyntheticScene], val_scenes: list[SyntheticScene]) -> None:
    means = np.array([scene.image.mean(axis=(0, 1)) for scene in train_scenes + val_scenes])
    assert (means.std(axis=0) > 8).all()
    assert ((means > 40) & (means < 215)).all()


def test_description_and_masks_as_documented(written: Path) -> None:
    description = load_dataset(written)
    assert [(entry.name, entry.color) for entry in description.classes] == list(CLASSES)
    root = written.parent
    assert sorted(path.name for path in (root / "unlabeled").iterdir()) == [f"unlabeled_00{k}.jpg" for k in range(3)]
    palette = {tuple(bytes.fromhex(color[1:])): index for index, (_, color) in enumerate(CLASSES)}
    for split in ("train", "val"):
        for number in range(2):
            with Image.open(root / split / "masks" / f"{split}_{number:03d}.png") as mask:
                colors = np.asarray(mask.convert("RGB")).reshape(-1, 3).tolist()
            labels = np.array([palette[tuple(color)] for color in colors]).reshape(64, 64)
            np.testing.assert_array_equal(labels, generate_scene(5, split, number=number, size=64).labels)


def test_images_survive_jpeg(written: Path) -> None:
    with Image.open(written.parent / "val" / "images" / "val_001.jpg") as image:
        stored = np.asarray(image, dtype=np.float64)
    assert np.abs(stored - generate_scene(5, "val", number=1, size=64).image).mean() < 8


def test_loads_as_a_data_set(written: Path) -> None:
    from segshrink.data import SceneStore, open_dataset

    dataset = open_dataset(load_dataset(written))
    assert (len(dataset.train), len(dataset.val), len(dataset.unlabeled)) == (2, 2, 3)
    store = SceneStore(dataset.val, dataset.classes)
    assert store.image(0).shape == (64, 64, 3)
    np.testing.assert_array_equal(store.mask(1), generate_scene(5, "val", number=1, size=64).truth)


def test_no_unlabeled_scenes(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "scenes", train=1, val=1, unlabeled=0, size=32)
    assert load_dataset(path).unlabeled is None
    assert not (tmp_path / "scenes" / "unlabeled").exists()


def test_writing_again_changes_nothing(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.parent.rglob("*")}
    assert write_scenes(written.parent, train=2, val=2, unlabeled=3, size=64, seed=5) == written
    assert {path: path.stat().st_mtime_ns for path in written.parent.rglob("*")} == before


def test_foreign_files_are_left_alone(written: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="choose another folder"):
        write_scenes(written.parent, train=1, val=2, unlabeled=3, size=64, seed=5)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileError, match="not empty"):
        write_scenes(tmp_path, train=1, val=1, unlabeled=0, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileError, match=r"thesis\.txt"):
        write_scenes(tmp_path / "thesis.txt", train=1, val=1, unlabeled=0, size=32)


@pytest.mark.parametrize(
    "wrong",
    [{"train": 0}, {"val": 0}, {"unlabeled": -1}, {"size": 31}, {"seed": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_arguments_are_named(wrong: dict[str, int], tmp_path: Path) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=f"^{name} is {value}; give at least"):
        write_scenes(tmp_path / "scenes", **wrong)
    assert not list(tmp_path.iterdir())


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="train, val, unlabeled"):
        generate_scene(0, "test", number=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [smooth_noise, fractal_noise])
@pytest.mark.parametrize("wavelength", [12.0, 24.0])
def test_noise_is_of_mean_0_and_deviation_1(noise, wavelength: float) -> None:
    values = np.stack([noise(np.random.default_rng(seed), 300, wavelength) for seed in range(4)])
    assert values.std() == pytest.approx(1, abs=0.2)
    assert values.mean() == pytest.approx(0, abs=0.15)


def test_noise_varies_over_its_wavelength() -> None:
    surface = smooth_noise(np.random.default_rng(0), 400, 40)
    near = np.corrcoef(surface[:, :-4].ravel(), surface[:, 4:].ravel())[0, 1]
    far = np.corrcoef(surface[:, :-80].ravel(), surface[:, 80:].ravel())[0, 1]
    assert near > 0.95
    assert abs(far) < 0.3


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    traits=st.builds(Traits, *(st.floats(0, 1) for _ in range(4)), river=st.booleans()),
    size=st.sampled_from([32, 50, 160]),
)
def test_every_layout_is_possible(seed: int, traits: Traits, size: int) -> None:
    """Buildings stand on dry ground off the roads, fields and woods nowhere else either, and all can be painted."""
    layout = plan_layout(np.random.default_rng(seed), size, traits)
    built, sown = layout.footprints >= 0, layout.parcels >= 0
    # A building's border may touch the pixels beside it.
    for other in (layout.road > 1, layout.water > 0, sown, layout.woods):
        assert not (built & other).any()
    assert not (sown & (layout.woods | (layout.road > 0) | (layout.water > 0))).any()
    assert layout.footprints.max() < len(layout.buildings)
    picture = paint(np.random.default_rng(seed), layout, traits.season)
    assert picture.shape == (size, size, 3)
    assert picture.std() > 5


def test_axes_place_what_their_coordinates_say() -> None:
    rng = np.random.default_rng(0)
    for axes in (Axes.random(rng, 200, bend=30) for _ in range(5)):
        along, across = axes.coordinates(200)
        for row, column in ((20, 150), (101, 60), (180, 30)):
            x, y, _ = axes.place(float(along[row, column]), float(across[row, column]))
            assert (x, y) == pytest.approx((column, row), abs=0.01)


def test_buildings_cover_the_ground_they_measure() -> None:
    layout = plan_layout(np.random.default_rng(1), 384, Traits(1, 0.3, 0.3, 0.5, river=True))
    drawn = np.bincount(layout.footprints[layout.footprints >= 0], minlength=len(layout.buildings))
    inside = [
        building.reach < min(building.x, building.y) <= max(building.x, building.y) < 384 - building.reach
        for building in layout.buildings
    ]
    area = np.array([building.length * building.width for building in layout.buildings])
    assert sum(inside) > 10
    np.testing.assert_allclose(drawn[inside], area[inside], rtol=0.2)


def test_shadows_fall_away_from_the_sun(val_scenes: list[SyntheticScene]) -> None:
    """Land beside a building is darker than land elsewhere."""
    building, land = NAMES.index("Building"), NAMES.index("Land")
    for scene in val_scenes:
        near = ndimage.binary_dilation(scene.truth == building, iterations=4) & (scene.truth == land)
        far = ~ndimage.binary_dilation(scene.truth == building, iterations=12) & (scene.truth == land)
        assert scene.image[near].mean() < scene.image[far].mean()
