"""Synthetic scenes: reproducible, balanced as promised, labels true to the picture, errors in train only."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segshrink.config import load_dataset
from segshrink.data.synthetic import CLASSES, SyntheticScene, generate_scene, write_scenes
from segshrink.data.synthetic.geometry import Canvas, Curve, Frame, Rectangle, convex_hull
from segshrink.data.synthetic.noise import fractal_noise, grow, shifted, smooth_noise, without_slivers
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
        int(((scene.labels == building) & grow(scene.truth == building, 9)).sum()) for scene in train_scenes
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
@pytest.mark.parametrize("wavelength", [3.0, 20.0])
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


def test_grow_and_slivers() -> None:
    dot = np.zeros((21, 21), bool)
    dot[10, 10] = True
    rows, columns = np.nonzero(grow(dot, 4))
    reach = np.hypot(rows - 10, columns - 10)
    assert reach.max() <= 4 * math.sqrt(2)
    assert {(10, 6), (10, 14), (6, 10), (14, 10)} <= set(zip(rows.tolist(), columns.tolist(), strict=True))
    shape = np.zeros((40, 40), bool)
    shape[5:25, 5:25] = True
    with_sliver = shape.copy()
    with_sliver[30:32] = True
    np.testing.assert_array_equal(without_slivers(with_sliver, 2)[28:], False)
    assert (without_slivers(with_sliver, 2)[:28] == shape[:28]).mean() > 0.99


@given(columns=st.integers(-12, 12), rows=st.integers(-12, 12))
@settings(max_examples=25)
def test_shifted_moves_every_pixel(columns: int, rows: int) -> None:
    surface = np.arange(1, 64, dtype=np.float32).reshape(7, 9)
    moved = shifted(surface, columns, rows)
    for row in range(7):
        for column in range(9):
            inside = 0 <= row - rows < 7 and 0 <= column - columns < 9
            assert moved[row, column] == (surface[row - rows, column - columns] if inside else 0)


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=4, max_size=16))
@settings(max_examples=50)
def test_convex_hull_holds_every_point(points: list[tuple[int, int]]) -> None:
    array = np.array(points, dtype=float)
    if np.linalg.matrix_rank(array - array[0]) < 2:
        return
    hull = convex_hull(array)
    assert {tuple(corner) for corner in hull.tolist()} <= {tuple(map(float, point)) for point in points}
    edges = np.roll(hull, -1, axis=0) - hull
    for point in array:
        offset = point - hull
        sides = edges[:, 0] * offset[:, 1] - edges[:, 1] * offset[:, 0]
        assert (sides >= -1e-9).all()


def test_drawn_rectangle_covers_the_pixels_inside_it() -> None:
    rectangle = Rectangle(20.3, 17.6, 0.5, 22, 9)
    canvas = Canvas(40, "L")
    canvas.polygon(rectangle.corners(), 255)
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5)
    along = (x - 20.3) * math.cos(0.5) + (y - 17.6) * math.sin(0.5)
    across = (y - 17.6) * math.cos(0.5) - (x - 20.3) * math.sin(0.5)
    inside = (np.abs(along) <= 11) & (np.abs(across) <= 4.5)
    assert ((canvas.sampled() > 0) != inside).sum() <= 12  # of 198: only pixels cut by the border
    assert canvas.averaged().sum() == pytest.approx(22 * 9, rel=0.06)


def test_drawn_line_is_as_wide_as_asked() -> None:
    curve = Curve(Frame((60, 60), 0.4), (6.0, 2.0), (90.0, 40.0), (1.0, 2.0))
    canvas = Canvas(120, "L")
    canvas.line(curve.points(120), 9, 255)
    x = np.arange(120, dtype=np.float32)[None] + np.float32(0.5)
    line = curve.points(120, step=0.25)
    xs, ys = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)
    distance = np.sqrt(((xs[..., None] - line[:, 0]) ** 2 + (ys[..., None] - line[:, 1]) ** 2).min(axis=2))
    assert ((canvas.sampled() > 0) != (distance <= 4.5)).mean() < 0.01
    close = distance < 12
    assert np.abs(curve.distance(x, x.T) - distance)[close].max() < 3.5
